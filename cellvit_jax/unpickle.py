"""Pickles read as data: what lies inside a `.pth`, and inside a `.npy` that holds a dict.

A pickle is a program for a small stack machine, and the usual reader runs it. This one walks over
the same opcodes, but the only functions it ever calls are its own, looked up in a table by the
name that the file asks for; any other name is an `UnsafeFileError`. What a pickle may build is
bounded by its own length, so neither a short file nor a clever one can fill the memory.
"""

import math
import mmap
import pickletools
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cellvit_jax.errors import CellViTError, UnsafeFileError

OBJECT_COST = 64  # bytes that an opcode may cost us: an empty list, an entry of a dict
FREE_BYTES = 32 * 2**20
MAX_DEPTH = 100


@dataclass(frozen=True)
class Function:
    """One of our own functions, standing for a name that a pickle may call."""

    call: Callable[..., Any]


class Namespace(dict[str, Any]):
    """The attributes of an object whose class does not matter."""


class Stream:
    """A stretch of a mapped file, as pickletools reads it; a claimed length is not trusted."""

    def __init__(self, data: mmap.mmap, start: int, stop: int):
        self.data, self.position, self.stop = data, start, stop

    def read(self, size: int) -> bytes:
        if size > self.stop - self.position:
            raise ValueError("it ends in the middle")
        self.position += size
        return self.data[self.position - size : self.position]

    def readline(self) -> bytes:
        end = self.data.find(b"\n", self.position, self.stop)
        line = self.read((self.stop if end < 0 else end + 1) - self.position)
        if b"\\" in line:
            raise ValueError("its text is written with backslashes")
        return line


# ----- the stack machine -----------------------------------------------------------------------


@dataclass
class Machine:
    """The state of one walk over a pickle."""

    allowed: Mapping[str, Any]
    storage: Callable[[Any], Any] | None
    budget: int
    stack: list[Any] = field(default_factory=list)
    below_marks: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self, _: None) -> None:
        self.below_marks.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below_marks.pop()
        return items

    def last(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise ValueError("its stack runs empty")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def remember(self, key: int | None) -> None:
        self.memo[len(self.memo) if key is None else key] = self.stack[-1]

    def look_up(self, name: str) -> None:
        name = name.replace(" ", ".")  # pickletools puts a space between module and attribute
        if name not in self.allowed:
            shown = re.sub(r"[^\w.]", "?", name[:80])
            raise UnsafeFileError(
                f"asks for {shown}, which is more than tensors, containers and plain values: "
                "refused, and nothing was run"
            )
        self.push(self.allowed[name])

    def append(self, items: Iterable[Any]) -> None:
        expect(self.stack[-1], list).extend(items)

    def insert(self, items: list[Any]) -> None:
        expect(self.stack[-1], dict, OrderedDict).update(_pairs(items[::2], items[1::2]))

    def reduce(self, _: None) -> None:
        function, arguments = self.last(2)
        self.spend(_extent(expect(arguments, tuple)))
        self.push(expect(function, Function).call(*arguments))

    def instantiate(self, name: str) -> None:
        arguments = tuple(self.since_mark())
        self.look_up(name)
        self.push(arguments)
        self.reduce(None)

    def build(self, _: None) -> None:
        (state,) = self.last(1)
        self.spend(_extent(state))
        _set_state(self.stack[-1], state)

    def load_storage(self, _: None) -> None:
        if self.storage is None:
            raise ValueError("it refers to a tensor's storage, which such a file cannot hold")
        self.push(self.storage(self.stack.pop()))

    def spend(self, size: int) -> None:
        self.budget -= size
        if self.budget < 0:
            raise UnsafeFileError("builds objects out of all proportion to its size: refused")


# fmt: off
LITERALS = (
    "NONE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
)
# fmt: on

OPCODES: dict[str, Callable[[Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda m, _: None),
    **dict.fromkeys(LITERALS, Machine.push),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), Machine.remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, key: m.push(m.memo[key])),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "MARK": Machine.mark,
    "EMPTY_LIST": lambda m, _: m.push([]),
    "LIST": lambda m, _: m.push(m.since_mark()),
    "APPEND": lambda m, _: m.append(m.last(1)),
    "APPENDS": lambda m, _: m.append(m.since_mark()),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "TUPLE": lambda m, _: m.push(tuple(m.since_mark())),
    "TUPLE1": lambda m, _: m.push(tuple(m.last(1))),
    "TUPLE2": lambda m, _: m.push(tuple(m.last(2))),
    "TUPLE3": lambda m, _: m.push(tuple(m.last(3))),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "DICT": lambda m, _: m.push(_dict(m.since_mark())),
    "SETITEM": lambda m, _: m.insert(m.last(2)),
    "SETITEMS": lambda m, _: m.insert(m.since_mark()),
    "GLOBAL": Machine.look_up,
    "INST": Machine.instantiate,
    "STACK_GLOBAL": lambda m, _: m.look_up(".".join(m.last(2))),
    "REDUCE": Machine.reduce,
    "NEWOBJ": Machine.reduce,
    "BUILD": Machine.build,
    "BINPERSID": Machine.load_storage,
}


def unpickle(
    stream: Stream,
    allowed: Mapping[str, Any],
    storage: Callable[[Any], Any] | None = None,
) -> Any:
    """The value that the pickle at the head of `stream` describes; the stream ends up behind it.

    `allowed` maps dotted global names to a `Function` or to a plain value; `storage` resolves the
    persistent ids of tensors' storages. Raises `UnsafeFileError` for anything beyond that, and
    ValueError, TypeError, AttributeError or OverflowError for a pickle that is malformed.
    """
    machine = Machine(allowed, storage, FREE_BYTES + stream.stop - stream.position)
    try:
        value = _run(machine, stream)
    except LookupError as problem:
        raise ValueError("its pickle refers to something that it never made") from problem
    _check_depth(value)
    return value


def _run(machine: Machine, stream: Stream) -> Any:
    for opcode, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type]
        if opcode.name not in OPCODES:
            raise ValueError(f"it uses the pickle opcode {opcode.name}, which no data needs")
        machine.spend(OBJECT_COST + (0 if argument is None else sys.getsizeof(argument)))
        OPCODES[opcode.name](machine, argument)
    (value,) = machine.stack
    return value


def _key(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return id(value)  # as torch hashes the parameters that an optimiser keeps notes of
    # Hashing a tuple recurses into it: of one that holds itself twice, sixty levels deep, forever.
    if not isinstance(value, str | int | float | bytes | None):
        raise TypeError(f"a {type(value).__name__} is used as a key")
    if isinstance(value, int) and value.bit_length() > 64:
        raise ValueError("a number of more than 64 bits is used as a key")
    return value


def _pairs(keys: Iterable[Any], values: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(map(_key, keys), values, strict=True)


def _dict(items: list[Any]) -> dict[Any, Any]:
    return dict(_pairs(items[::2], items[1::2]))


def _extent(value: Any) -> int:
    """Bytes that a function could make of `value`, from it and its direct members."""
    members = value if type(value) in (tuple, list) else (value,)
    return OBJECT_COST * (4 + len(members)) + sum(_size(member) for member in members)


def _size(value: Any) -> int:
    if isinstance(value, list | tuple | dict | set):
        return OBJECT_COST * len(value)
    return len(value) if isinstance(value, str) else 0


def _check_depth(value: Any) -> None:
    """Whoever gets the value may walk it by recursion."""
    seen: set[int] = set()
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent, seen)]
        if not level:
            return
    raise UnsafeFileError(f"nests its values more than {MAX_DEPTH} levels deep: refused")


def _children(value: Any, seen: set[int]) -> Iterable[Any]:
    if id(value) in seen:
        return ()
    seen.add(id(value))
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        return value.ravel()
    return value if isinstance(value, list | tuple) else ()


# ----- what a pickle may ask for ---------------------------------------------------------------


# Arguments are checked for their types before anything else is done with them: comparing, hashing
# or printing lists that hold each other can take forever, and a list times a number fills memory.


def expect(value: Any, *types: type) -> Any:
    """`value`, if its type is exactly one of `types`."""
    if type(value) not in types:
        raise TypeError(f"a {type(value).__name__} stands where a {types[0].__name__} belongs")
    return value


def sizes(values: Any) -> tuple[int, ...]:
    """A shape or strides, if it is one."""
    if len(expect(values, tuple)) > 64 or not all(type(v) is int and v >= 0 for v in values):
        raise ValueError("a shape is made of something else than a few sizes")
    return values


def _ordered_dict(items: Iterable[Any] = ()) -> OrderedDict[Any, Any]:
    return OrderedDict((_key(key), value) for key, value in items)


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        raise ValueError("its bytes are not written as latin1")
    return expect(text, str).encode("latin1")


def _set_state(target: Any, state: Any) -> None:
    if isinstance(target, OrderedDict):
        return  # torch hangs the versions of its layers on a state dict
    if isinstance(target, Namespace):
        target.update(expect(state, dict))
    elif isinstance(target, np.dtype):
        if state[1] not in ("<", "|"):
            raise ValueError("it holds big-endian numbers")
    elif isinstance(target, np.ndarray):
        _fill(target, *state[1:])
    else:
        raise TypeError(f"a {type(target).__name__} cannot be given a state")


def _fill(array: np.ndarray, shape: Any, dtype: Any, fortran: Any, data: Any) -> None:
    kind, width = (list, 1) if dtype.hasobject else (bytes, dtype.itemsize)
    if len(expect(data, kind)) != math.prod(sizes(shape)) * width:
        raise ValueError(f"an array of shape {shape} does not come with as many values")
    # Arrays directly inside arrays are freed by recursion in C, without a limit.
    if kind is list and any(isinstance(item, np.ndarray) for item in data):
        raise ValueError("it holds an array of arrays")
    array.__setstate__((1, shape, dtype, bool(fortran), data))  # type: ignore[arg-type]


CONTAINERS = {
    "collections.OrderedDict": Function(_ordered_dict),
    "collections.Counter": Function(lambda counts: dict(expect(counts, dict))),
    "collections.defaultdict": Function(lambda *_: {}),
    "argparse.Namespace": Function(lambda: Namespace()),
    "pathlib.PosixPath": Function(lambda *parts: "/".join(parts)),
    "_codecs.encode": Function(_encode),
    **dict.fromkeys(("builtins.dict", "__builtin__.dict"), Function(lambda: {})),
    **dict.fromkeys(
        ("builtins.set", "__builtin__.set"),
        Function(lambda items=(): set(map(_key, items))),
    ),
}


# ----- files -----------------------------------------------------------------------------------


@contextmanager
def mapped(path: str | Path, kind: str, error: type[CellViTError]) -> Iterator[mmap.mmap]:
    """The bytes of a file; whatever goes wrong in the block is one sentence about that file.

    `kind` says what the file should be ("a PyTorch checkpoint"). Raises `error`, or
    `UnsafeFileError` where the block did.
    """
    path = Path(path)
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "is not there"
        raise error(f"{path} {problem}: expected {kind}")
    try:
        with path.open("rb") as file:
            if not file.seek(0, 2):
                raise ValueError("it is empty")
            yield mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except UnsafeFileError as refusal:
        raise UnsafeFileError(f"{path} {refusal}") from refusal
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror or problem}") from problem
    except (ValueError, TypeError, AttributeError, OverflowError) as problem:
        raise error(f"{path} is damaged or not {kind}: {problem}") from problem
