"""`cellvit-convert SRC DST`, from files to files."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cellvit_convert.cli import main
from cellvit_jax import checkpoint
from cellvit_jax.torch_save import name, plain
from tests.convert.archives import write_archive, write_legacy, write_pickle
from tests.convert.states import GENERIC, zeros

BIAS = "encoder.head.bias"


@pytest.fixture(scope="module")
def value() -> dict[str, object]:
    state = zeros("cellvit-generic-d192") | {BIAS: np.linspace(-1, 1, 19, dtype=np.float32)}
    return {"arch": "CellViT", "epoch": 9, "model_state_dict": state, "config": GENERIC}


@pytest.fixture(scope="module")
def source(value: dict[str, object], tmp_path_factory: pytest.TempPathFactory):
    path = write_archive(tmp_path_factory.mktemp("source") / "any-name.bin", value)
    yield path
    path.unlink()


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one sentence of an error."""
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("cellvit-convert: ")
    return err


def test_a_converted_model_loads_and_is_described(source: Path, tmp_path: Path, capsys) -> None:
    assert main([str(source), str(tmp_path / "out")]) == 0
    model = checkpoint.load(tmp_path / "out")
    np.testing.assert_array_equal(model.encoder.head.bias[...], np.linspace(-1, 1, 19, dtype="f4"))
    assert model.config.skip_layers == (1, 3, 5, 6)
    assert "CellViT, epoch 9" in model.card.provenance
    out = capsys.readouterr().out
    for words in ("cellvit (arch: CellViT)", "Neoplastic", "35 × num_batches_tracked", "out"):
        assert words in out


def test_an_existing_target_is_kept_unless_told_otherwise(
    source: Path, tmp_path: Path, capsys
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    assert "exists" in failure(capsys, source, target)
    assert "not a checkpoint" in failure(capsys, source, target, "--overwrite")
    assert (target / "notes.txt").read_text() == "mine"
    assert main([str(source), str(tmp_path / "new"), "--dtype", "bfloat16"]) == 0
    assert main([str(source), str(tmp_path / "new"), "--dtype", "float16", "--overwrite"]) == 0
    model = checkpoint.load(tmp_path / "new")
    half = np.linspace(-1, 1, 19).astype(np.float16)
    np.testing.assert_array_equal(model.encoder.head.bias[...], half)


@pytest.mark.parametrize("content", [b"", b"plain text\n", b"PK\3\4 truncated"])
def test_files_that_are_no_checkpoints(tmp_path: Path, capsys, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    assert "x.pth is damaged or not a PyTorch" in failure(
        capsys, tmp_path / "x.pth", tmp_path / "out"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


def test_missing_files_and_folders(tmp_path: Path, capsys) -> None:
    assert "is not there" in failure(capsys, tmp_path / "x.pth", tmp_path / "out")
    assert "not a checkpoint directory" in failure(capsys, tmp_path, tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_a_pickle_that_runs_something_is_refused(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    evil = name("posix.system") + plain(("touch pwned",)) + b"R"
    path = write_pickle(tmp_path / "x.pth", plain("model_state_dict") + evil + b"\x86")
    assert "asks for posix.system" in failure(capsys, path, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


def test_a_missing_key_is_a_diff(value: dict[str, object], tmp_path: Path, capsys) -> None:
    state = {k: v for k, v in value["model_state_dict"].items() if k != BIAS}
    path = write_legacy(tmp_path / "x.pth", value | {"model_state_dict": state})
    assert "\n- encoder.head.bias: in the model, not in the checkpoint" in failure(
        capsys, path, tmp_path / "out"
    )
    path.unlink()
    assert not any(tmp_path.iterdir())


def test_names_cannot_write_to_the_terminal(tmp_path: Path, capsys) -> None:
    path = write_archive(tmp_path / "x.pth", {"\x1b[2J": np.ones(1)})
    assert "\x1b" not in failure(capsys, path, tmp_path / "out")


def test_a_target_that_cannot_be_written(source: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("")
    assert "file" in failure(capsys, source, tmp_path / "file" / "out")
    assert "exists" in failure(capsys, source, tmp_path / "file", "--overwrite")


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from cellvit_convert.cli import main\ntry: main(['--help'])\n"
    code += "except SystemExit: pass\nassert not {'jax', 'numpy', 'flax'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cellvit-convert" in done.stdout


def test_a_file_of_torch_itself(value: dict[str, object], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    state = {k: torch.from_numpy(v) for k, v in value["model_state_dict"].items()}
    torch.save(value | {"model_state_dict": state}, tmp_path / "x.pth")
    assert main([str(tmp_path / "x.pth"), str(tmp_path / "out")]) == 0
    model = checkpoint.load(tmp_path / "out")
    np.testing.assert_array_equal(model.encoder.head.bias[...], value["model_state_dict"][BIAS])
