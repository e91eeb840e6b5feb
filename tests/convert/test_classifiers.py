"""Classifier heads from `.pth` to a checkpoint and back; the trained ones of CellViT++."""

from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from flax import nnx

import cellvit_jax as cj
from cellvit_convert.cli import main
from cellvit_jax import checkpoint
from cellvit_jax.errors import InputError
from cellvit_jax.inference.segment import predictor_of
from cellvit_jax.models import CellClassifier, HeadConfig
from cellvit_jax.torch_files import read_torch
from tests.convert.archives import write_archive
from tests.networks import CARD, filled, small_config
from tests.parity.synthetic import draw
from tests.shared import shared

SHAPES = {"fc1.weight": (6, 10), "fc1.bias": (6,), "fc2.weight": (2, 6), "fc2.bias": (2,)}
TRAINED = ("consep", "lizard", "ocelot", "panoptils")


def write_head(path: Path, config: dict[str, object]) -> Path:
    state = {key: draw(key, shape, "float32") for key, shape in SHAPES.items()}
    value = {"arch": "LinearClassifier", "epoch": 4, "model_state_dict": state, "config": config}
    return write_archive(path, value)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    names = {"data.label_map.0": "Non-Tumour", "data.label_map.1": "Tumour"}
    return write_head(tmp_path / "x.pth", names | {"model.hidden_dim": 6})


def names_of(head: CellClassifier) -> list[str]:
    return [c.name for c in head.card.classes]


def test_a_head_is_a_checkpoint_too(source: Path, tmp_path: Path, capsys) -> None:
    assert main([str(source), str(tmp_path / "head")]) == 0
    assert "cell_classifier (arch: LinearClassifier)" in capsys.readouterr().out
    head = cj.load(tmp_path / "head")
    assert isinstance(head, CellClassifier)
    assert head.config == HeadConfig(token_dim=10, hidden_dim=6, num_classes=2)
    # logit i is of class i + 1: the background has none
    assert names_of(head) == ["Background", "Non-Tumour", "Tumour"]
    assert head(np.ones((3, 10))).shape == (3, 2)


def test_a_label_map_counts_from_any_id(source: Path, tmp_path: Path) -> None:
    for first in (1, 2, 9):
        names = {f"data.label_map.{first + 1}": "Tumour", f"data.label_map.{first}": "Non-Tumour"}
        write_head(tmp_path / f"from-{first}.pth", names)
    for path in (source, *tmp_path.glob("from-*.pth")):
        assert main([str(path), str(tmp_path / path.stem)]) == 0
        assert names_of(cj.load(tmp_path / path.stem)) == ["Background", "Non-Tumour", "Tumour"]


@pytest.mark.filterwarnings("default:the label map:UserWarning")
@pytest.mark.parametrize(
    ("ids", "problem"),
    [
        ("1", "has 1 names for 2 classes"),
        ("012", "has 3 names for 2 classes"),
        ("02", "has the ids [0, 2], expected such without gaps: 0, 1, … or 1, 2, …"),
        (("-1", "0"), "has the ids [-1, 0], expected such without gaps: 0, 1, … or 1, 2, …"),
        ("1x", "has an id that is no integer"),
    ],
)
def test_names_that_do_not_fit_are_none_and_it_is_said(ids, problem, tmp_path, capsys) -> None:
    source = write_head(tmp_path / "x.pth", {f"data.label_map.{i}": f"name {i}" for i in ids})
    assert main([str(source), str(tmp_path / "head")]) == 0
    assert names_of(cj.load(tmp_path / "head")) == ["Background", "class 1", "class 2"]
    assert f"cellvit-convert: the label map {problem}" in capsys.readouterr().err


def test_a_round_trip_is_exact(source: Path, tmp_path: Path) -> None:
    assert main([str(source), str(tmp_path / "head")]) == 0
    assert main([str(tmp_path / "head"), str(tmp_path / "y.pth")]) == 0
    first, second = read_torch(source), read_torch(tmp_path / "y.pth")
    assert (second["arch"], second["epoch"]) == (first["arch"], first["epoch"])
    assert second["config"]["data.label_map.1"] == "Tumour"
    assert list(second["model_state_dict"]) == list(SHAPES)
    for key, tensor in first["model_state_dict"].items():
        np.testing.assert_array_equal(second["model_state_dict"][key], tensor)


def test_a_head_is_no_network_for_segmentation(source: Path, tmp_path: Path) -> None:
    assert main([str(source), str(tmp_path / "head")]) == 0
    with pytest.raises(InputError, match="is a cell_classifier: segmentation needs"):
        predictor_of(cj.load(tmp_path / "head"))


def test_another_layer_is_a_diff(source: Path, tmp_path: Path, capsys) -> None:
    state = dict(read_torch(source)["model_state_dict"]) | {"fc3.bias": np.ones(2)}
    path = write_archive(tmp_path / "y.pth", state)
    assert main([str(path), str(tmp_path / "head")]) == 2
    assert "? fc3.bias: no rule" in capsys.readouterr().err


def save_wide(path: Path) -> None:
    """A small network of SAM-H's token width that takes all it sees for one nucleus."""
    config = small_config(embed_dim=1280, mlp_ratio=0.05)
    model = filled(config)
    model.heads.nuclei_binary_map.bias[...] = np.array([-999.0, 999.0])
    checkpoint.save(path, nnx.state(model, checkpoint.WEIGHTS), config, CARD)


@pytest.mark.parametrize("name", TRAINED)
def test_a_trained_head_runs_behind_segment(name: str, call, tmp_path: Path) -> None:
    source = shared(f"data/classifiers/sam-h/{name}.pth")
    assert main([str(source), str(tmp_path / "head")]) == 0
    save_wide(tmp_path / "model")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    np.save(tmp_path / "noise.npy", pixels)
    networks = ("--model", tmp_path / "model", "--head", tmp_path / "head")
    given = (*networks, "--tokens", "--mpp", "0.25", "--export", "parquet", "--out", tmp_path)
    code, _, errors = call("segment", tmp_path / "noise.npy", *given)
    assert code == 0, errors
    cells = cj.read_cells(tmp_path / "noise")
    names = list(yaml.safe_load(shared("data/classifiers/labels.yaml").read_text())[name].values())
    assert [name for name, _ in cells.classes.values()] == names
    found = np.array(cells.table["probabilities"].to_pylist())
    assert found.shape == (1, 1 + len(names))
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    logits = cj.load(tmp_path / "head")(np.array(cells.table["token"].to_pylist()))
    np.testing.assert_allclose(found[:, 1:], jax.nn.softmax(logits), atol=1e-5)
    np.testing.assert_array_equal(cells.column("type"), found.argmax(1))


@pytest.mark.parametrize("name", TRAINED)
def test_trained_heads_give_the_recorded_logits(name: str, tmp_path: Path) -> None:
    source = shared(f"data/classifiers/sam-h/{name}.pth")
    record = np.load(shared(f"reference/classifiers/{name}.npz"))
    assert main([str(source), str(tmp_path / "head")]) == 0
    labels = yaml.safe_load(shared("data/classifiers/labels.yaml").read_text())[name]
    assert names_of(cj.load(tmp_path / "head")) == ["Background", *labels.values()]
    with jax.default_matmul_precision("highest"):
        found = np.asarray(cj.load(tmp_path / "head")(record["tokens"]))
    assert np.abs(found - record["logits"]).max() <= 1e-5


@pytest.mark.parametrize("name", TRAINED)
def test_trained_heads_come_back_as_they_were(name: str, tmp_path: Path) -> None:
    source = shared(f"data/classifiers/sam-h/{name}.pth")
    assert main([str(source), str(tmp_path / "head")]) == 0
    assert main([str(tmp_path / "head"), str(tmp_path / "back.pth")]) == 0
    first, second = read_torch(source), read_torch(tmp_path / "back.pth")
    for what in ("arch", "epoch"):
        assert second[what] == first[what]
    rebuilt_from = ("model.hidden_dim", "data.num_classes", "data.label_map.")
    found, expected = (
        {key: value for key, value in one["config"].items() if key.startswith(rebuilt_from)}
        for one in (second, first)
    )
    assert found == expected
    assert list(second["model_state_dict"]) == list(first["model_state_dict"])
    for key, tensor in first["model_state_dict"].items():
        np.testing.assert_array_equal(second["model_state_dict"][key], tensor, strict=True)
