"""Damaged files at random: a clear error or a correct load, in little time and memory."""

import contextlib
import signal
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellvit_convert.content import Content
from cellvit_convert.pytorch_to_orbax import translate
from cellvit_jax.errors import CellViTError
from cellvit_jax.torch_files import read_torch
from tests.convert.archives import write_archive, write_legacy, write_pickle
from tests.convert.states import GENERIC, zeros
from tests.convert.watch import nothing_runs
from tests.parity.synthetic import draw
from tests.test_inspection import HEAD, write_safetensors

SECONDS = 10  # far more than any of these files needs
OVERHEAD = 2**20  # bytes of Python objects that even the smallest file costs
SMALL_FILES = settings(
    max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

EDGES = (0, 1, 0x7F, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """A head in each kind of file that is read."""
    path = tmp_path_factory.mktemp("originals") / "x"
    state = {key: draw(key, shape, "float32") for key, shape in HEAD.items()}
    value = {
        "arch": "LinearClassifier",
        "epoch": 3,
        "config": {"data.label_map.0": "a", "data.label_map.1": "b", "training.drop_rate": 0.1},
        "model_state_dict": state,
    }
    files = [write(path, value).read_bytes() for write in (write_archive, write_legacy)]
    return [*files, write_safetensors(path).read_bytes()]


@contextlib.contextmanager
def bounded(size: int) -> Iterator[None]:
    """Fails where the block takes too long, or more memory than twice `size`."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
        assert peak <= 2 * size + OVERHEAD
    finally:
        tracemalloc.stop()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def read(path: Path) -> Content | None:
    """The content of a file, None where it is refused; it must do nothing else."""
    with bounded(path.stat().st_size), nothing_runs(), contextlib.suppress(CellViTError):
        return Content.read(path)
    return None


def mutate(content: bytes, others: list[bytes], data: st.DataObject) -> bytes:
    """Bytes replaced, removed, cut off, taken from elsewhere, or read as a length and changed."""
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        start = data.draw(st.integers(0, max(len(changed) - 1, 0)))
        stop = start + data.draw(st.integers(0, 16))
        match data.draw(st.sampled_from(["replace", "flip", "splice", "number", "cut"])):
            case "replace":
                changed[start:stop] = data.draw(st.binary(max_size=16))
            case "flip" if changed:
                changed[start] ^= 1 << data.draw(st.integers(0, 7))
            case "splice":
                other = data.draw(st.sampled_from([content, *others]))
                at = data.draw(st.integers(0, len(other) - 1))
                changed[start:stop] = other[at : at + data.draw(st.integers(0, 400))]
            case "number":
                form = data.draw(st.sampled_from(["<L", "<Q", ">L", "<H"]))
                value = data.draw(st.sampled_from(EDGES)) % 2 ** (8 * struct.calcsize(form))
                changed[start : start + struct.calcsize(form)] = struct.pack(form, value)
            case "cut":
                del changed[start:]
    return bytes(changed)


@given(data=st.data())
@SMALL_FILES
@pytest.mark.filterwarnings("ignore:the label map:UserWarning")
def test_mutated_files_are_converted_or_refused(tmp_path: Path, originals, data) -> None:
    path = tmp_path / "mutated"
    path.write_bytes(mutate(data.draw(st.sampled_from(originals)), originals, data))
    content = read(path)
    if content is not None:
        with contextlib.suppress(CellViTError):
            result = translate(content)
            # what converts is whole: every number in its place, none made up
            assert result.config.num_classes == content.tensors["fc2.bias"].size
            np.testing.assert_array_equal(
                result.weights["fc1"]["kernel"][...], content.tensors["fc1.weight"].T
            )


@given(opcodes=st.binary(max_size=200))
@SMALL_FILES
def test_any_opcodes_are_read_or_refused(tmp_path: Path, opcodes: bytes) -> None:
    path = write_pickle(tmp_path / "mutated", opcodes, s0=bytes(16))
    with bounded(path.stat().st_size), nothing_runs(), contextlib.suppress(CellViTError):
        read_torch(path)


@pytest.mark.parametrize("kind", range(3))
def test_every_cut_is_refused(tmp_path: Path, originals, kind: int) -> None:
    for size in range(0, len(originals[kind]), 7):
        (tmp_path / "cut").write_bytes(originals[kind][:size])
        assert read(tmp_path / "cut") is None


def test_a_large_file_is_not_held_in_memory(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "x.pth", {"w": np.ones(5_000_000, np.float32)})
    with bounded(0):
        assert Content.read(path).tensors["w"].size == 5_000_000


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=25)
def test_any_state_dict_is_converted_or_refused(data: st.DataObject) -> None:
    """Of networks too: keys missing, renamed and added, tensors of other shapes and types."""
    model = data.draw(st.sampled_from(["cellvit-generic-d192", "cellvit-sam-b", "cellvit-uni"]))
    state = dict(zeros(model))
    for _ in range(data.draw(st.integers(0, 3))):
        key = data.draw(st.sampled_from(sorted(state)))
        match data.draw(st.sampled_from(["drop", "rename", "reshape", "retype"])):
            case "drop":
                del state[key]
            case "rename":
                state[data.draw(st.text(max_size=9)) + key[3:]] = state.pop(key)
            case "reshape":
                sizes = st.lists(st.sampled_from((0, 1, 2, 64, 768)), max_size=3)
                state[key] = np.zeros(data.draw(sizes), np.float32)
            case "retype":
                state[key] = state[key].astype(data.draw(st.sampled_from(["?", "i8", "f8"])))
    with contextlib.suppress(CellViTError):
        translate(Content(state, config=GENERIC if "generic" in model else {}))
