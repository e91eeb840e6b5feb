"""The command `train` in its several ways: one batch, other weights, two sources, an early end."""

import json
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from tests.networks import save_encoder, save_small
from tests.training import written
from tests.training.folders import write_folder

pytest.importorskip("grain")

import cellvit_jax as cj
from cellvit_convert import cli as convert
from cellvit_jax import checkpoint, sharding
from cellvit_jax.card import ModelCard
from cellvit_jax.data import open_dataset
from cellvit_jax.models import DecoderWidths
from cellvit_jax.stains import Staining, stained_as
from cellvit_jax.torch_files import read_torch
from cellvit_jax.training import config as configs
from cellvit_jax.training import run as runs
from cellvit_jax.training import start
from cellvit_jax.training.config import RunConfig

ONE_STEP = {
    "recipe.epochs": 1,
    "recipe.steps_per_epoch": 1,
    "recipe.batch_size": 2,
    "recipe.tile": 32,
    "recipe.schedule.kind": "constant",
    "recipe.schedule.warmup_steps": 0,
    "recipe.calibration_batches": 1,
    "validation.held_out": 0,
    "loggers": "[]",
}
STILL = {"recipe.schedule.peak": 0, "recipe.ema_decay": "null"}  # weights stay as they are


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
    """On one device."""
    one = partial(sharding.make_mesh, devices=jax.devices()[:1])
    monkeypatch.setattr(sharding, "make_mesh", one)


@pytest.fixture
def train(call, tmp_path):
    """Train in the folder `run`, and give what was printed."""

    def go(*words: object, out: str = "run", **values: object) -> str:
        settings = [f"{name}={value}" for name, value in (ONE_STEP | values).items()]
        sets = [word for one in settings for word in ("--set", one)] if values else []
        code, told, errors = call("train", *words, *sets, "--out", tmp_path / out)
        assert code == 0, errors
        return told + errors

    return go


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "mine")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small"
    save_small(path, shared_trunk=True, num_tissues=0)
    return path


def rows(run: Path, name: str) -> list[dict[str, float]]:
    """The lines of the log that have a value of that name."""
    found = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [row for row in found if name in row]


def leaves(model: nnx.Module, kind=checkpoint.WEIGHTS) -> dict[str, np.ndarray]:
    found = checkpoint.leaves(nnx.to_pure_dict(nnx.state(model, kind)))
    return {name: np.asarray(leaf) for name, leaf in found.items()}


@pytest.mark.slow
def test_one_batch_is_seen_again_and_again_and_learnt(train, data, model, tmp_path):
    values = {"recipe.steps_per_epoch": 6, "recipe.accumulate": 2, "recipe.schedule.peak": 1e-2}
    train("--data", data, "--model", model, "--overfit-one-batch", **values)
    first, again, *later = [row["loss"] for row in rows(tmp_path / "run", "loss")]
    # between two updates the weights are the same: so are the losses if the batch is
    assert first == again
    assert later[0] == later[1] < first
    assert later[2] == later[3] < later[0]
    assert not rows(tmp_path / "run", "bpq")


@pytest.mark.slow
def test_a_run_whose_scores_get_no_better_ends_and_its_best_is_kept(train, data, model, tmp_path):
    # too small a step to change what is found, but not to change the weights
    values = {"recipe.epochs": 9, "validation.patience": 2, "recipe.schedule.peak": 1e-7}
    values |= {"validation.held_out": 0.2, "recipe.accumulate": 1, "recipe.ema_decay": "null"}
    told = train("--data", data, "--model", model, **values)
    run = tmp_path / "run"
    assert "trained      3 steps, early: scores got no better" in told
    assert told.count("(best)") == 1
    scores = rows(run, "bpq")
    assert [row["step"] for row in scores] == [0, 1, 2]
    assert scores[0]["bpq"] == max(row["bpq"] for row in scores)
    assert (run / "best" / "config.json").stat().st_mtime < scores[1]["time"]
    best, last = (leaves(cj.load(run / name), nnx.Param) for name in ("best", "last"))
    assert any((best[name] != last[name]).any() for name in best)


def test_another_number_of_classes_renews_the_layer_of_types_alone(model, tmp_path):
    data = open_dataset(write_folder(tmp_path / "three", ("Round", "Long", "Odd")))
    before, found = leaves(cj.load(model)), start.find(str(model), data, tile=32)
    renewed = before.keys() - found.weights.keys()
    assert {before[name].shape[-1] for name in renewed} == {3}
    assert len({name.rpartition(".")[0] for name in renewed}) == 1
    for name, value in found.weights.items():
        np.testing.assert_array_equal(value, before[name])
    assert "the layer of types begins anew" in "\n".join(found.news)


@pytest.mark.slow
def test_a_trained_network_goes_back_to_the_originals(train, tmp_path):
    """Started from weights of other classes, which are all kept but the layer of types."""
    data = write_folder(tmp_path / "three", ("Round", "Long", "Odd"))
    original = {"widths": DecoderWidths.published(16), "position_grid": 14}
    save_small(tmp_path / "small", num_tissues=0, shared_trunk=True, **original)
    told = train("--data", data, "--model", tmp_path / "small", **STILL)
    assert "the layer of types begins anew" in told
    best = tmp_path / "run" / "best"
    before, trained = (leaves(cj.load(path), nnx.Param) for path in (tmp_path / "small", best))
    renewed = {name for name in before if before[name].shape != trained[name].shape}
    assert len(renewed) == 2  # kernel and bias
    for name in before.keys() - renewed:
        np.testing.assert_array_equal(trained[name], before[name])
    assert convert.main([str(best), str(tmp_path / "out.pth")]) == 0
    assert read_torch(tmp_path / "out.pth")["arch"] == "CellViTShared"
    assert convert.main([str(tmp_path / "out.pth"), str(tmp_path / "back")]) == 0
    back = cj.load(tmp_path / "back")
    assert [one.name for one in back.card.classes[1:]] == ["Round", "Long", "Odd"]
    for name, value in leaves(cj.load(best)).items():
        np.testing.assert_array_equal(leaves(back)[name], value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"encoder": "dinov2", "gate": "silu", "num_registers": 4},
        {"encoder": "sam", "window_size": 3, "global_layers": (2, 4), "adapters": True},
    ],
    ids=["vit", "virchow2", "sam-med2d"],
)
def test_an_encoder_is_kept_under_a_fresh_decoder(train, data, tmp_path, fields):
    encoder = save_encoder(tmp_path / "encoder", **fields)
    told = train("--data", data, "--model", encoder, **STILL)
    assert f"over the encoder of {encoder}, fresh decoder" in told
    trained = leaves(cj.load(tmp_path / "run" / "best"))
    for name, value in leaves(cj.load(encoder)).items():
        np.testing.assert_array_equal(trained[name], value)


@pytest.mark.slow
def test_sources_have_their_shares_and_one_may_be_without_types(train, data, model, tmp_path):
    untyped = write_folder(tmp_path / "untyped", classes=(), fields=2)
    share = {"data.1.share": 0.5}
    told = train("--data", data, untyped, "--model", model, **share)
    assert "5 fields to learn from; to measure on: nothing" in told
    job = runs.prepare(configs.read(tmp_path / "run" / "config.json", RunConfig))
    stream = job.batches(0)
    typed = np.concatenate([next(stream)["typed"] for _ in range(150)])
    stream.close()
    assert typed.mean() == pytest.approx(1 / 1.5, abs=0.08)  # three deviations of 300 draws


def test_a_network_sees_normalised_images_now_and_when_it_is_trained_further(data, model, tmp_path):
    (field, *_) = open_dataset(data).samples
    changes = ["recipe.augmentation={}", "recipe.tile=64", "validation.held_out=0"]
    config = runs.new_config([str(data)], str(model), "finetune", changes)
    plain, told = runs.prepare(config), runs.prepare(config.changed(["stain=macenko"]))
    assert (plain.network.card.stain, told.network.card.stain) == ("", "macenko")
    save_with_card(told.network.card, model, tmp_path / "normalising")
    config = runs.new_config([str(data)], str(tmp_path / "normalising"), "finetune", changes)
    for job, image in (
        (plain, field.image),
        (told, stained_as(field.image, Staining())),
        (runs.prepare(config), stained_as(field.image, Staining())),
    ):
        stream = job.batches(0)
        np.testing.assert_array_equal(next(stream)["image"][0], image)
        stream.close()


def save_with_card(card: ModelCard, model: Path, path: Path) -> None:
    network = cj.load(model)
    checkpoint.save(path, nnx.state(network, checkpoint.WEIGHTS), network.config, card)


@pytest.mark.slow
def test_a_config_repeats_its_run(train, data, model, tmp_path):
    train("--data", data, "--model", model, **{"recipe.steps_per_epoch": 3})
    train("--config", tmp_path / "run" / "config.json", out="again")
    assert not [name for name in ("run", "again") if len(rows(tmp_path / name, "loss")) != 3]
    first, second = (written.rows(tmp_path / name) for name in ("run", "again"))
    assert first == second
    one, other = (leaves(cj.load(tmp_path / name / "last")) for name in ("run", "again"))
    for name, value in one.items():
        np.testing.assert_array_equal(other[name], value)
