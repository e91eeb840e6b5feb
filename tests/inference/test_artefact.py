import sys

import numpy as np
import pytest

from cellvit_jax import checkpoint
from cellvit_jax.errors import CheckpointError, InputError, MissingExtraError
from cellvit_jax.inference import Predictor, artefact
from tests.networks import CARD, save_small

pytest.importorskip("flatbuffers")
TILES = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory) -> Predictor:
    path = tmp_path_factory.mktemp("artefact") / "model"
    save_small(path)
    return Predictor(checkpoint.load(path, dtype="bfloat16"), CARD, batch_size=1, tokens=True)


@pytest.fixture(scope="module")
def folder(predictor, tmp_path_factory):
    place = tmp_path_factory.mktemp("artefact") / "program"
    artefact.save(predictor, place, 32)
    return place


def test_a_program_gives_the_same_maps(predictor, folder):
    program = artefact.load(folder)
    assert program.platforms == artefact.PLATFORMS
    assert program.card == predictor.card
    maps = program(TILES)
    for i, expected in enumerate(predictor(TILES)):
        assert maps.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(maps[name][i], values, atol=1e-6)


def test_other_tiles_are_refused(folder):
    with pytest.raises(InputError, match=r"\(1, 32, 32, 3\)"):
        artefact.load(folder)(TILES[:, :16])


def test_a_damaged_program_is_refused(folder, tmp_path):
    for name in (artefact.PROGRAM, artefact.CARD):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(CheckpointError, match="whole"):
        artefact.load(tmp_path)
    np.savez(tmp_path / artefact.WEIGHTS, np.zeros(3, np.float32))
    with pytest.raises(CheckpointError, match="weights"):
        artefact.load(tmp_path)


def test_unknown_platforms_are_refused(predictor, tmp_path):
    with pytest.raises(InputError, match="cuda"):
        artefact.save(predictor, tmp_path / "x", 32, ["vulkan"])


def test_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(MissingExtraError, match=r"cellvit-jax\[export\]"):
        artefact.load(tmp_path)


def test_commands(call, tmp_path):
    save_small(tmp_path / "model")
    code, out, err = call("warmup", "--model", tmp_path / "model", "--batch-size", 1, "--tile", 32)
    assert (code, err) == (0, "")
    assert "compiled in" in out
    assert call("warmup", "--model", tmp_path / "model", "--attention", "cudnn")[0] == 2
    arguments = "program", tmp_path / "x", "--model", tmp_path / "model", "--platforms", "cpu"
    assert call(*arguments)[0] == 0
    assert artefact.load(tmp_path / "x").tile_shape == (1, 64, 64, 3)
    assert call(*arguments)[0] == 2
