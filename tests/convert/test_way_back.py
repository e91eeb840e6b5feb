"""From a checkpoint directory to the `.pth` file that the original code loads."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cellvit_convert import originals
from cellvit_convert.cli import main
from cellvit_convert.content import Content
from cellvit_convert.families import identify, rules
from cellvit_convert.pytorch_to_orbax import translate
from cellvit_convert.rules import find, restore
from cellvit_jax import checkpoint
from cellvit_jax.card import ModelCard, cell_classes
from cellvit_jax.errors import CheckpointError
from cellvit_jax.models import CellViT, ModelConfig
from cellvit_jax.torch_files import read_torch
from tests.convert.archives import write_archive
from tests.convert.states import GENERIC, MODELS, zeros
from tests.networks import save_small
from tests.parity.synthetic import state_dict
from tests.shared import shared

CARD = ModelCard(cell_classes("Round", "Long"), ("Colon",), mean=(0.1, 0.2, 0.3))
NARROW = ModelConfig.cellvit(
    embed_dim=16,
    depth=4,
    num_heads=2,
    skip_layers=(1, 2, 3, 4),
    num_classes=3,
    num_tissues=1,
    shared_trunk=True,
    drop_rate=0.25,
)


def described(model: str) -> dict[str, Any]:
    return GENERIC if model == "cellvit-generic-d192" else {}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that never was a `.pth` file, of a network that the originals can build."""
    model = nnx.eval_shape(lambda: CellViT(NARROW, rngs=nnx.Rngs(0)))
    weights = jax.tree.map(
        lambda x: jnp.linspace(-1, 1, x.size).reshape(x.shape),
        nnx.state(model, checkpoint.WEIGHTS),
    )
    path = tmp_path_factory.mktemp("trained") / "model"
    checkpoint.save(path, weights, NARROW, CARD)
    return path


@pytest.mark.parametrize("model", MODELS)
def test_names_order_and_layout_come_back(model: str) -> None:
    content = Content(zeros(model), config=described(model))
    table = rules(identify(content).config(content))
    found = {key: find(key, table) for key in content.tensors}
    ours = {
        p.name: np.transpose(tensor, p.axes or range(tensor.ndim))
        for p, tensor in zip(found.values(), content.tensors.values(), strict=True)
        if p
    }
    theirs = restore(dict(sorted(ours.items())), table, {})
    assert list(theirs) == list(content.tensors)
    for key, tensor in content.tensors.items():
        if found[key]:  # a view of the same memory, with the same strides
            assert theirs[key].__array_interface__ == tensor.__array_interface__
        else:
            assert (theirs[key].shape, theirs[key].dtype) == ((), np.int64)


def test_all_recorded_networks_come_back_in_order_and_type() -> None:
    """Every manifest of a CellViT beside this checkout, also those that are not in it."""
    paths = sorted(shared("reference/manifests").glob("cellvit-*.json"))
    assert {path.stem for path in paths} > set(MODELS)
    for path in paths:
        rows = json.loads(path.read_text())
        tensors = {row["key"]: np.zeros(row["shape"], row["dtype"]) for row in rows}
        content = Content(tensors, config=described(path.stem))
        table = rules(identify(content).config(content))
        named = {p.name: (tensors[key], p.axes) for key in tensors if (p := find(key, table))}
        ours = {name: np.transpose(t, axes or range(t.ndim)) for name, (t, axes) in named.items()}
        theirs = restore(ours, table, {})
        assert list(theirs) == list(tensors), path.stem
        assert [t.dtype for t in theirs.values()] == [t.dtype for t in tensors.values()]
        assert [t.shape for t in theirs.values()] == [t.shape for t in tensors.values()]


@pytest.mark.parametrize(
    "model",
    [
        "cellvit-generic-d192",
        pytest.param("cellvit-256-shared", marks=pytest.mark.slow),
        pytest.param("cellvit-256-regression", marks=pytest.mark.slow),
        pytest.param("cellvit-sam-b", marks=pytest.mark.slow),
    ],
)
def test_a_round_trip_is_exact(model: str, tmp_path: Path) -> None:
    value = {"epoch": 7, "model_state_dict": state_dict(model), "config": described(model)}
    source = write_archive(tmp_path / "x.pth", value)
    assert main([str(source), str(tmp_path / "model")]) == 0
    assert main([str(tmp_path / "model"), str(tmp_path / "y.pth")]) == 0
    found, expected = read_torch(tmp_path / "y.pth"), value["model_state_dict"]
    assert found["epoch"] == 7
    assert list(found["model_state_dict"]) == list(expected)
    for key, tensor in found["model_state_dict"].items():
        assert tensor.dtype == expected[key].dtype
        assert tensor.shape == expected[key].shape
        assert tensor.tobytes() == expected[key].tobytes(), key
    first, second = (translate(Content.read(tmp_path / f"{name}.pth")) for name in "xy")
    assert first.config == second.config
    assert first.card.classes == second.card.classes


def test_a_network_trained_here_goes_back(trained: Path, tmp_path: Path, capsys) -> None:
    assert main([str(trained), str(tmp_path / "x.pth")]) == 0
    assert "CellViTShared" in capsys.readouterr().out
    found = read_torch(tmp_path / "x.pth")
    assert (found["arch"], found["epoch"]) == ("CellViTShared", None)
    state = found["model_state_dict"]
    counters = [t for k, t in state.items() if k.endswith(".num_batches_tracked")]
    assert len(counters) == sum(k.endswith(".running_mean") for k in state) == 17
    assert {(int(t), t.dtype, t.shape) for t in counters} == {(0, np.dtype(np.int64), ())}
    again = translate(Content.read(tmp_path / "x.pth"))
    assert again.config == NARROW
    assert (again.card.classes, again.card.tissues) == (CARD.classes, CARD.tissues)
    assert again.card.mean == CARD.mean


def test_parameters_take_the_type_asked_for(trained: Path, tmp_path: Path) -> None:
    assert main([str(trained), str(tmp_path / "x.pth"), "--dtype", "bfloat16"]) == 0
    state = read_torch(tmp_path / "x.pth")["model_state_dict"]
    types = {key.rpartition(".")[2]: str(tensor.dtype) for key, tensor in state.items()}
    assert (types["weight"], types["cls_token"], types["running_var"]) == (
        "bfloat16",
        "bfloat16",
        "float32",
    )
    assert types["num_batches_tracked"] == "int64"


def test_an_existing_file_is_kept_unless_told_otherwise(
    trained: Path, tmp_path: Path, capsys
) -> None:
    (tmp_path / "x.pth").write_text("mine")
    assert main([str(trained), str(tmp_path / "x.pth")]) == 2
    assert "exists" in capsys.readouterr().err
    assert (tmp_path / "x.pth").read_text() == "mine"
    assert main([str(trained), str(tmp_path), "--overwrite"]) == 2
    assert main([str(trained), str(tmp_path / "x.pth"), "--overwrite"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]
    assert read_torch(tmp_path / "x.pth")["arch"] == "CellViTShared"


def test_torch_reads_it_as_weights_only(trained: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    assert main([str(trained), str(tmp_path / "x.pth")]) == 0
    found = torch.load(tmp_path / "x.pth", weights_only=True)["model_state_dict"]
    for key, array in read_torch(tmp_path / "x.pth")["model_state_dict"].items():
        np.testing.assert_array_equal(found[key].numpy(), array)


# ----- what the originals cannot build ---------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (ModelConfig.cellvit_tiny(), "has no cellvit_tiny: it builds cellvit, cellvit_256"),
        (ModelConfig.cellvit_virchow(gate="silu"), "CellViTVirchow gate is gelu, not silu"),
        (ModelConfig.cellvit_sam_h(position_grid=16), "position_grid is 64, not 16"),
        (ModelConfig.cellvit_uni(shared_trunk=True), "every branch has its own trunk"),
        (ModelConfig.cellvit_256(patch_size=8), "patch_size is 16, not 8"),
    ],
)
def test_what_is_different_is_said(config: ModelConfig, sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        originals.arch(config)


def test_a_refusal_leaves_nothing_behind(tmp_path: Path, capsys) -> None:
    save_small(tmp_path / "model")
    assert main([str(tmp_path / "model"), str(tmp_path / "x.pth")]) == 2
    assert "widths is DecoderWidths" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("config", "arch"),
    [
        (ModelConfig.cellvit_256(3, 0), "CellViT256"),
        (ModelConfig.cellvit_256(shared_trunk=True), "CellViT256Shared"),
        (ModelConfig.cellvit_sam_l(regression_loss=True), "CellViTSAM"),
        (ModelConfig.cellvit_virchow2(drop_rate=0.1), "CellViTVirchow2"),
    ],
)
def test_the_class_of_the_originals(config: ModelConfig, arch: str) -> None:
    assert originals.arch(config) == arch
