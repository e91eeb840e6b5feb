"""The strict renaming: every key and every name is accounted for, and the error is a diff."""

import re

import numpy as np
import pytest

from cellvit_convert.families import identify
from cellvit_convert.families import rules as rules_of
from cellvit_convert.pytorch_to_orbax import Content, translate
from cellvit_convert.rules import CONV, LINEAR, UPSAMPLE, Parameter, Rule, find, rename
from cellvit_jax.errors import CheckpointError
from tests.convert.states import GENERIC, MODELS, zeros

RULES = (
    Rule("blocks.*.fc", "blocks.*.mlp", LINEAR),
    Rule("stem", "stem", CONV),
    Rule("copy", "stem", CONV),
    Rule("up", "up", UPSAMPLE),
    Rule("norm", "norm", {"weight": Parameter("scale"), "num_batches_tracked": None}),
)


def problems(tensors: dict[str, np.ndarray], wanted: dict[str, tuple[int, ...]]) -> list[str]:
    with pytest.raises(CheckpointError) as error:
        rename(tensors, RULES, wanted)
    return str(error.value).splitlines()[1:]


def test_axes_move_as_the_layouts_say() -> None:
    shapes = {"blocks.7.fc.weight": (5, 3), "stem.weight": (8, 4, 1, 2), "up.weight": (4, 8, 2, 1)}
    tensors = {key: np.arange(np.prod(s)).reshape(s) for key, s in shapes.items()}
    wanted = {"blocks.7.mlp.kernel": (3, 5), "stem.kernel": (1, 2, 4, 8), "up.kernel": (2, 1, 4, 8)}
    renamed = rename(tensors, RULES, wanted).tensors
    o, i, y, x = 6, 3, 0, 1
    assert renamed["blocks.7.mlp.kernel"][2, 4] == tensors["blocks.7.fc.weight"][4, 2]
    assert renamed["stem.kernel"][y, x, i, o] == tensors["stem.weight"][o, i, y, x]
    assert renamed["up.kernel"][x, y, i, o] == tensors["up.weight"][i, o, x, y]
    assert all(
        np.shares_memory(renamed[n], t) for n, t in zip(wanted, tensors.values(), strict=True)
    )


def test_ignored_keys_are_named() -> None:
    tensors = {"norm.weight": np.ones(2), "norm.num_batches_tracked": np.array(7)}
    renamed = rename(tensors, RULES, {"norm.scale": (2,)})
    assert renamed.ignored == ["norm.num_batches_tracked"]
    assert list(renamed.tensors) == ["norm.scale"]


def test_a_key_without_a_rule() -> None:
    assert problems({"norm.weight": np.ones(2), "x.y": np.ones(2)}, {"norm.scale": (2,)}) == [
        "? x.y: no rule"
    ]


def test_a_name_written_twice() -> None:
    tensors = {"stem.bias": np.ones(2), "copy.bias": np.ones(2)}
    assert problems(tensors, {"stem.bias": (2,)}) == [
        "= stem.bias: written twice, the second time by copy.bias"
    ]


def test_missing_surplus_and_shape_in_one_error() -> None:
    tensors = {"norm.weight": np.ones(2), "stem.weight": np.ones((1, 1)), "up.bias": np.ones(3)}
    lines = problems(tensors, {"norm.scale": (3,), "stem.kernel": (1, 1, 1, 1), "stem.bias": (1,)})
    assert [line.split(":")[0] for line in lines] == [
        "+ up.bias",
        "- stem.bias",
        "! norm.scale",
        "! stem.kernel",
    ]


@pytest.mark.parametrize("model", MODELS)
def test_every_key_of_the_published_models_has_one_rule(model: str) -> None:
    content = Content(zeros(model), config=GENERIC if model == "cellvit-generic-d192" else {})
    rules = rules_of(identify(content).config(content))
    names = [find(key, rules) for key in content.tensors]
    written = [parameter.name for parameter in names if parameter]
    assert len(set(written)) == len(written)
    assert len(names) - len(written) == sum("num_batches" in key for key in zeros(model))


@pytest.mark.parametrize("model", ["cellvit-256-shared", "cellvit-sam-b", "cellvit-virchow2"])
def test_everything_but_counters_is_of_use(model: str) -> None:
    blocks = re.compile(r"encoder\.blocks\.(\d+)")
    state = {
        key: tensor
        for key, tensor in zeros(model).items()
        if not (match := blocks.match(key)) or int(match[1]) < 4
    }
    assert all("num_batches" in key for key in translate(Content(state)).ignored)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda s: s.pop("encoder.norm.bias"), "- encoder.norm.bias: in the model, not in"),
        (lambda s: s.pop("encoder.pos_embed"), "- encoder.pos_embed: in the model, not in"),
        (lambda s: s.update(extra=np.ones(1)), r"\? extra: no rule"),
        (lambda s: s.update({"encoder.norm.bias": np.ones(9)}), r"! encoder.norm.bias: \(9,\)"),
        (
            lambda s: s.update({"encoder.blocks.6.norm1.bias": np.ones(192)}),
            "- encoder.blocks.6.norm1.scale",
        ),
    ],
)
def test_a_changed_state_dict_is_a_diff(change, line: str) -> None:
    state = zeros("cellvit-generic-d192")
    change(state)
    with pytest.raises(CheckpointError, match=f"does not fit the model:\n(.*\n)*{line}"):
        translate(Content(state, config=GENERIC))
