"""What `cellvit-jax inspect` says of folders and files."""

import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from cellvit_convert.cli import main as convert
from cellvit_jax import cli
from cellvit_jax.errors import CheckpointError, InputError
from cellvit_jax.inspection import Summary, inspect
from tests.convert.archives import write_archive
from tests.convert.states import GENERIC, zeros
from tests.networks import CARD, save_small, small_config

HEAD = {"fc1.weight": (6, 10), "fc1.bias": (6,), "fc2.weight": (2, 6), "fc2.bias": (2,)}
VALUES = 6 * 10 + 6 + 2 * 6 + 2


def write_head(path: Path, dtype: str = "float32", **fields: object) -> Path:
    state = {key: np.zeros(shape, dtype) for key, shape in HEAD.items()}
    return write_archive(path, {"model_state_dict": state, **fields})


def write_safetensors(path: Path) -> Path:
    entries, end = {}, 0
    for key, shape in HEAD.items():
        start, end = end, end + 4 * int(np.prod(shape))
        entries[key] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    header = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(end))
    return path


def test_a_checkpoint_directory(tmp_path: Path) -> None:
    model = save_small(tmp_path / "model")
    found = inspect(tmp_path / "model")
    assert (found.config, found.card) == (small_config(), CARD)
    assert (found.dtypes, found.epoch, found.ignored) == (["float32"], None, ())
    assert found.parameters > model.encoder.pos_embed[...].size
    assert "classes      Round, Long\ntissues      Colon, Skin, Lung" in str(found)


def test_a_network_of_pytorch(tmp_path: Path) -> None:
    state = zeros("cellvit-generic-d192")
    value = {"arch": "CellViT", "epoch": 9, "model_state_dict": state, "config": GENERIC}
    found = inspect(write_archive(tmp_path / "x.pth", value))
    assert (found.config.architecture, found.arch, found.epoch) == ("cellvit", "CellViT", 9)
    assert "35 × num_batches_tracked" in str(found)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    trained = [t.size for key, t in state.items() if not key.endswith(statistics)]
    assert found.parameters == sum(trained)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_file_and_what_it_becomes_are_said_alike(tmp_path: Path, dtype: str) -> None:
    source = write_head(tmp_path / "x.pth", dtype, arch="LinearClassifier", epoch=4)
    assert convert([str(source), str(tmp_path / "head"), "--dtype", dtype]) == 0
    assert str(inspect(source)) == str(inspect(tmp_path / "head"))
    found = inspect(source)
    assert (found.parameters, found.epoch, found.dtypes) == (VALUES, 4, (dtype,))


def test_safetensors(tmp_path: Path, capsys) -> None:
    source = write_safetensors(tmp_path / "any-name")
    assert inspect(source).parameters == VALUES
    assert convert([str(source), str(tmp_path / "head")]) == 0
    assert str(inspect(tmp_path / "head")) == str(inspect(source))


def test_names_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    names = {"data.label_map.0": "\x1b[2J", "data.label_map.1": "Tumour"}
    source = write_head(tmp_path / "x.pth", config=names)
    assert "Tumour" in str(inspect(source))
    assert "\x1b" not in str(inspect(source))


def test_what_cannot_be_converted_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not known"):
        inspect(write_archive(tmp_path / "x.pth", {"a": np.ones(1)}))
    with pytest.raises(InputError, match="no model or folder"):
        inspect(tmp_path / "missing")
    with pytest.raises(CheckpointError, match="not a checkpoint directory"):
        inspect(tmp_path)


def test_the_command_prints_it(tmp_path: Path, monkeypatch, capsys) -> None:
    source = write_head(tmp_path / "x.pth")
    monkeypatch.setattr(sys, "argv", ["cellvit-jax", "inspect", str(source)])
    cli.main()
    assert capsys.readouterr().out == f"{inspect(source)}\n"
    monkeypatch.setattr(sys, "argv", ["cellvit-jax", "inspect", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert "not a checkpoint directory" in capsys.readouterr().err


def test_nothing_is_left_out_of_a_summary() -> None:
    text = str(Summary(small_config(), CARD, 2_250_000, ("bfloat16",), "X", 3, ("a.b", "c.b")))
    assert "2.2 million" in text
    assert "cellvit (arch: X)" in text
    assert "ignored      2 × b" in text
