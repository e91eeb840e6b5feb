import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cellvit_jax import checkpoint
from cellvit_jax.errors import CheckpointError, InputError, OutputError
from tests.networks import CARD, make, noise, run, save_small, small_config


def edit(path, change) -> None:
    values = json.loads((path / "config.json").read_text())
    change(values)
    (path / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize("fields", [{}, {"drop_rate": 0.1, "drop_path_rate": 0.1}])
def test_a_loaded_model_equals_the_saved_one(tmp_path, fields):
    model = save_small(tmp_path / "model", **fields)
    loaded = checkpoint.load(tmp_path / "model")
    images = noise(1, 32, 48, 3)
    found = run(loaded, images)
    for name, value in run(model, images).items():
        np.testing.assert_array_equal(found[name], value)


def test_the_card_comes_along(tmp_path):
    save_small(tmp_path / "model")
    loaded = checkpoint.load(tmp_path / "model")
    assert loaded.card == CARD
    assert loaded.card.cell_classes == {1: ("Round", (255, 0, 0)), 2: ("Long", (34, 221, 77))}
    assert loaded.config == small_config()


def test_the_compute_type_can_be_chosen(tmp_path):
    save_small(tmp_path / "model")
    loaded = checkpoint.load(tmp_path / "model", dtype=jnp.bfloat16)
    assert loaded.encoder.blocks[0].mlp.fc1.dtype == jnp.bfloat16
    assert run(loaded, noise(1, 32, 32, 3))["hv_map"].dtype == jnp.float32


def test_weights_that_do_not_fit_are_a_diff(tmp_path):
    save_small(tmp_path / "model")
    edit(tmp_path / "model", lambda v: v["model"].update(num_classes=4, num_tissues=0))
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(tmp_path / "model")
    lines = str(caught.value).splitlines()
    assert "! heads.nuclei_type_map.bias: (3,), the model has (4,)" in lines
    assert "+ encoder.head.bias: in the checkpoint, not in the model" in lines


def test_missing_weights_are_named(tmp_path):
    save_small(tmp_path / "model", num_tissues=0)
    edit(tmp_path / "model", lambda v: v["model"].update(num_tissues=3))
    with pytest.raises(CheckpointError, match=r"- encoder\.head\.kernel: in the model, not"):
        checkpoint.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda v: v.update(format_version=99), "format 99"),
        (lambda v: v.pop("card"), "not a checkpoint directory"),
        (lambda v: v["model"].update(colour=1), "colour"),
        (lambda v: v["model"].pop("depth"), "depth"),
    ],
)
def test_a_config_that_cannot_be_read_is_an_error(tmp_path, change, sentence):
    save_small(tmp_path / "model")
    edit(tmp_path / "model", change)
    with pytest.raises(CheckpointError, match=sentence):
        checkpoint.load(tmp_path / "model")


def test_a_folder_without_weights_is_an_error(tmp_path):
    save_small(tmp_path / "model")
    (tmp_path / "model" / "weights").rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="no readable Orbax weights"):
        checkpoint.load(tmp_path / "model")


@pytest.mark.parametrize("damage", [Path.unlink, lambda part: part.write_bytes(b"\0" * 10)])
def test_damaged_weights_are_an_error(tmp_path, damage):
    save_small(tmp_path / "model")
    damage(tmp_path / "model" / "weights" / "state" / "encoder.pos_embed" / "0.0.0")
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(tmp_path / "model")


def test_saving_again_replaces_and_leaves_nothing_else(tmp_path):
    for seed in (0, 1):
        weights = nnx.state(make(small_config(), seed), checkpoint.WEIGHTS)
        checkpoint.save(tmp_path / "model", weights, small_config(), CARD)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    loaded = checkpoint.load(tmp_path / "model").encoder.cls_token[...]
    np.testing.assert_array_equal(loaded, make(small_config(), 1).encoder.cls_token[...])


def test_a_save_that_fails_leaves_the_old_checkpoint(tmp_path):
    save_small(tmp_path / "model")
    with pytest.raises(AttributeError):
        checkpoint.save(tmp_path / "model", None, small_config(), None)
    assert checkpoint.load(tmp_path / "model").card == CARD
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.png").touch()
    with pytest.raises(OutputError, match="not a checkpoint"):
        save_small(tmp_path / "photos")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cellvit-tiny-consap", "did you mean cellvit-tiny-consep"),
        ("cellvit-sam-h-x40", "CellViT-SAM-H-x40-AMP.pth"),
        ("cellvit-256x40", "cellvit-convert"),
        ("sam-med2d-vit-h-x40", "sam-med2d-h-x40 is not bundled"),
        ("no such thing", "Bundled: cellvit-tiny-consep"),
    ],
)
def test_an_unknown_model_is_told_what_exists(name, sentence):
    with pytest.raises(InputError, match=sentence):
        checkpoint.load(name)


def test_a_file_is_told_to_be_converted(tmp_path):
    (tmp_path / "model.pth").touch()
    with pytest.raises(InputError, match="cellvit-convert"):
        checkpoint.load(tmp_path / "model.pth")
