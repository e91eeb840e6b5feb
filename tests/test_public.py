"""The public face: what each room offers is there, sorted, described and typed."""

import ast
import importlib
import importlib.util
import inspect
import typing
from pathlib import Path
from types import ModuleType

import pytest

PACKAGE = "cellvit_jax"
ROOMS = [
    PACKAGE,
    f"{PACKAGE}.cells",
    f"{PACKAGE}.data",
    f"{PACKAGE}.exports",
    f"{PACKAGE}.inference",
    f"{PACKAGE}.models",
    f"{PACKAGE}.slides",
]
LAZY = [PACKAGE, f"{PACKAGE}.cells"]
SPECIAL = {"__init__", "__call__"}


def fresh(room: str) -> ModuleType:
    """The module as it is before anything was asked of it."""
    spec = importlib.util.find_spec(room)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_code(value: object) -> bool:
    return inspect.isfunction(value) or inspect.isclass(value)


def members(owner: typing.Any, module: str) -> dict[str, typing.Any]:
    """Public functions and classes that a module or class of this module defines itself."""
    plain = {k: getattr(v, "fget", getattr(v, "__func__", v)) for k, v in vars(owner).items()}
    return {
        name: value
        for name, value in plain.items()
        if is_code(value)
        and value.__module__ == module
        and (name in SPECIAL or not name.startswith("_"))
    }


def public() -> dict[str, typing.Any]:
    """Every public function, class and method by its full name."""
    modules = [importlib.import_module(room) for room in ROOMS]
    offered = [getattr(module, name) for module in modules for name in module.__all__]
    metrics = importlib.import_module(f"{PACKAGE}.metrics")
    offered += members(metrics, metrics.__name__).values()
    found = {}
    for value in filter(is_code, offered):
        name = f"{value.__module__}.{value.__name__}"
        inner = members(value, value.__module__) if inspect.isclass(value) else {}
        found |= {name: value} | {f"{name}.{key}": member for key, member in inner.items()}
    return found


PUBLIC = public()


@pytest.mark.parametrize("room", ROOMS)
def test_names_are_sorted_there_and_listed(room):
    module = fresh(room)
    assert list(module.__all__) == sorted(set(module.__all__))
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        getattr(module, name)


@pytest.mark.parametrize("room", LAZY)
def test_type_checkers_see_what_is_served(room):
    module = fresh(room)
    tree = ast.parse(Path(module.__file__).read_text())
    (block,) = (n for n in tree.body if isinstance(n, ast.If) and n.test.id == "TYPE_CHECKING")
    seen = {alias.name for statement in block.body for alias in statement.names}
    assert seen == set(module.__all__) == set(module._HOMES)


@pytest.mark.parametrize("room", ROOMS)
def test_an_unknown_name_is_an_attribute_error(room):
    with pytest.raises(AttributeError, match=f"'{room}' has no attribute 'nuclei'"):
        importlib.import_module(room).nuclei  # noqa: B018


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_described(room):
    assert importlib.import_module(room).__doc__


@pytest.mark.parametrize("name", [n for n in PUBLIC if n.rpartition(".")[2] not in SPECIAL])
def test_everything_public_is_described(name):
    doc = PUBLIC[name].__doc__
    assert doc
    # what a dataclass without a docstring is given
    assert not doc.startswith(name.rpartition(".")[2] + "(")


@pytest.mark.parametrize("name", [n for n, v in PUBLIC.items() if inspect.isfunction(v)])
def test_everything_public_is_typed(name):
    wanted = set(inspect.signature(PUBLIC[name]).parameters) - {"self", "cls"}
    returned = set() if name.endswith("__init__") else {"return"}
    assert wanted | returned <= set(typing.get_type_hints(PUBLIC[name]))
