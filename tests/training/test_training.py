"""The loop on a network of a few channels: it learns, it saves, it resumes."""

import dataclasses
import itertools
import json
import signal
from functools import partial
from itertools import islice
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.networks import CARD, make, small_config
from tests.training_data.fields import field

pytest.importorskip("grain")

from cellvit_jax import checkpoint
from cellvit_jax.data.pipeline import RandomTile, batches
from cellvit_jax.errors import CellViTError
from cellvit_jax.sharding import make_mesh
from cellvit_jax.training import loop
from cellvit_jax.training.calibrate import calibrate
from cellvit_jax.training.loop import Validation, train
from cellvit_jax.training.objective import Objective, normalise
from cellvit_jax.training.optimizer import in_encoder
from cellvit_jax.training.recipes import Recipe, Schedule
from cellvit_jax.training.state import Layout, TrainState, begin, new_layout
from cellvit_jax.training.states import States
from cellvit_jax.training.task import Supervised

ONE = make_mesh(devices=jax.devices()[:1])
CONFIG = small_config(shared_trunk=True, num_tissues=0)
RECIPE = Recipe(
    epochs=6,
    steps_per_epoch=1,
    batch_size=2,
    accumulate=2,
    objective=Objective(double_softmax=False),
    schedule=Schedule(peak=1e-3, warmup_steps=2, decay_share=0.3),
    save_every=3,  # between two updates
    calibration_batches=3,
)


def stream(start: int = 0, workers: int = 0):
    tiles = RandomTile([field(), field(typed=False)], np.array([0.7, 0.3]), tile=32)
    return batches(tiles, RECIPE.batch_size, seed=0, start=start, workers=workers)


def go(run, batches=stream, recipe=RECIPE, **how) -> list[dict[str, float]]:
    train(run, CONFIG, CARD, recipe, batches, mesh=ONE, **how)
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def weights(path) -> list[np.ndarray]:
    return jax.tree.leaves(nnx.state(checkpoint.load(path), checkpoint.WEIGHTS))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = tmp_path_factory.mktemp("whole")
    return run, go(run)


def test_every_step_is_logged_with_every_term(whole):
    _, log = whole
    assert [row["step"] for row in log] == list(range(6))
    names = {field.name for field in dataclasses.fields(Objective) if field.type == "float"}
    names -= {"regression_mse", "tissue_cross_entropy"}  # of maps that this network has not
    assert names <= log[0].keys()
    row, objective = log[3], RECIPE.objective
    total = sum(getattr(objective, name) * row[name] for name in names)
    assert row["loss"] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_resumed_run_equals_an_uninterrupted_one(whole, tmp_path, workers):
    making = partial(stream, workers=workers)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, until(5, making))
    assert saved(tmp_path) == {3}
    same(whole, (tmp_path, go(tmp_path, making)))


def until(step: int, making):
    """Batches that end with Ctrl-C in place of that of a step."""

    def failing(start: int):
        yield from islice(making(start), step - start)
        raise KeyboardInterrupt

    return failing


def saved(run) -> set[int]:
    """The steps of the states that are kept."""
    return {int(path.name) for path in (run / "state").iterdir()}


def same(*runs) -> None:
    """Two runs have the same losses, and the same weights at the end."""
    one, other = ([(row["step"], row["loss"]) for row in log] for _, log in runs)
    assert one == other
    for value, wanted in zip(*(weights(run / "last") for run, _ in runs), strict=True):
        np.testing.assert_array_equal(value, wanted)


class Quick(Supervised):
    """Its loss is quick to compile, and moves the encoder and one bias of the decoder."""

    def loss(self, model, batch, average):
        skips = model.encoder(normalise(model, batch["image"])).skips
        loss = jnp.mean(skips[-1] ** 2) + jnp.sum((model.heads.hv_map.bias[...] - 1) ** 2)
        return loss, {"loss": loss}


@pytest.mark.slow
def test_an_encoder_rests_until_its_epoch_and_a_stopped_run_goes_on_from_there(tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=2, accumulate=1, unfreeze_epoch=1)
    task, one, other = Quick(CONFIG, recipe), tmp_path / "one", tmp_path / "other"
    layout = new_layout(CONFIG, CARD, recipe, ONE, task)
    first, log = encoder(begin(layout)), go(one, recipe=recipe, task=task)
    go(other, stopping, recipe, task=task)
    assert saved(other) == {1}  # by the signal: nothing else is due
    for name, value in encoder(last(other, layout)).items():
        np.testing.assert_array_equal(value, first[name])
    for name, value in encoder(last(one, layout)).items():
        assert not np.array_equal(value, first[name]), name
    same((one, log), (other, go(other, recipe=recipe, task=task)))


def stopping(start: int):
    """Batches, the first of which comes with Ctrl-C."""
    signal.raise_signal(signal.SIGINT)
    yield from stream(start)


def last(run, layout: Layout) -> TrainState:
    """The last state that a run has saved."""
    with States(run / "state", keep=9) as states:
        return states.load(layout)[0]


def encoder(state: TrainState) -> dict[str, np.ndarray]:
    """What the encoder is made of, but for the norm that a tissue head alone would see."""
    names = (name for name in state.params if in_encoder(name) and "encoder.norm" not in name)
    return {name: np.array(state.params[name]) for name in names}


def test_a_run_may_start_from_the_weights_of_another(whole, tmp_path):
    run, _ = whole
    still = dataclasses.replace(RECIPE, epochs=1, schedule=Schedule(peak=0.0))
    train(tmp_path / "next", CONFIG, CARD, still, stream, start_from=run / "last", mesh=ONE)
    for before, after in zip(weights(run / "last"), weights(tmp_path / "next/last"), strict=True):
        if before.ndim > 1:  # statistics are measured anew
            np.testing.assert_array_equal(before, after)


def test_a_finished_run_stays_as_it_is(whole):
    run, log = whole
    assert go(run) == log


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    def broken(start: int):
        for batch in stream(start):
            yield batch | {"hv": np.full_like(batch["hv"], np.nan)}

    with pytest.raises(CellViTError, match="the loss is nan at step 0"):
        train(tmp_path, CONFIG, CARD, RECIPE, broken, mesh=ONE)
    with np.load(tmp_path / "bad-batch.npz") as kept:
        assert kept["step"] == 0
        assert np.isnan(kept["hv"]).all()


class Root(Supervised):
    """Where images are black its loss is finite and has no gradient."""

    def loss(self, model, batch, average):
        bias = model.heads.hv_map.bias[...]
        loss = jnp.sqrt(batch["image"].mean() * (1 + jnp.sum(bias**2)))
        return loss, {"loss": loss}


def test_a_finite_loss_whose_gradients_are_not_leaves_the_last_good_states(tmp_path):
    def darkening(start: int):
        for step in range(start, 9):
            yield {"image": np.full((2, 32, 32, 3), 0 if step == 4 else 255, np.uint8)}

    recipe = dataclasses.replace(RECIPE, save_every=1)
    task = Root(CONFIG, recipe)
    with pytest.raises(CellViTError, match="the norm of the gradients is nan at step 4"):
        train(tmp_path, CONFIG, CARD, recipe, darkening, task=task, mesh=ONE, keep=3)
    with np.load(tmp_path / "bad-batch.npz") as kept:
        assert kept["step"] == 4
        assert not kept["image"].any()
    assert saved(tmp_path) == {2, 3, 4}  # steps made
    state = last(tmp_path, new_layout(CONFIG, CARD, recipe, ONE, task))
    assert all(np.isfinite(value).all() for value in state.params.values())


def test_a_run_that_was_killed_in_its_last_score_is_scored_again(tmp_path):
    moments = iter([KeyboardInterrupt, None])

    def score(model):
        if moment := next(moments):
            raise moment
        return {"bpq": 0.5}, {}

    def end():
        how = {"task": Root(CONFIG, RECIPE), "validation": Validation(score, every=100)}
        return train(tmp_path, CONFIG, CARD, RECIPE, stream, mesh=ONE, **how)

    with pytest.raises(KeyboardInterrupt):
        end()
    assert end().best == 0.5
    assert (tmp_path / "best").exists()


class Loss:
    """Of a step on the device; notes when the host reads it."""

    def __init__(self, step: int, events: list[str]):
        self.step, self.events = step, events

    def __float__(self) -> float:
        self.events.append(f"read {self.step}")
        return 1.0


def test_the_host_reads_a_step_once_the_next_one_is_under_way(tmp_path, monkeypatch):
    events, numbers = [], itertools.count()

    def step(state: object, batch: object) -> tuple[object, dict[str, Loss]]:
        number = next(numbers)
        events.append(f"begin {number}")
        return state, {"loss": Loss(number, events), "grad_norm": 1.0}

    monkeypatch.setattr(loop, "make_step", lambda *_, **__: step)
    recipe = dataclasses.replace(RECIPE, epochs=3, save_every=100)
    layout = Mock(recipe=recipe, mesh=ONE, task=Mock(given={}))
    run = loop.Loop(tmp_path, layout, stream, None, Mock(), Mock(), Mock(), Mock(waited=0))
    batches = iter([{"image": np.zeros((2, 8, 8, 3), np.uint8)}] * 3)
    # nothing can be read from such a state
    run.steps(0, object(), batches, Mock(asked=lambda _: False))
    assert events == ["begin 0", "begin 1", "read 0", "begin 2", "read 1", "read 2"]


def test_final_batch_statistics_are_the_mean_over_batches():
    model = make(CONFIG)
    model.card = CARD
    head = list(islice(stream(), 3))
    first = model.skip_paths.level0.layers[0]
    features = [first.conv(normalise(model, batch["image"])) for batch in head]
    calibrate(model, head)
    expected = np.mean([feature.mean((0, 1, 2)) for feature in features], axis=0)
    np.testing.assert_allclose(first.norm.mean[...], expected, atol=1e-5)


def test_one_batch_can_be_learnt(tmp_path):
    batch = next(stream())
    recipe = dataclasses.replace(
        RECIPE,
        epochs=40,
        accumulate=1,
        schedule=Schedule(peak=1e-2, decay_share=0.1),
        save_every=1000,
    )
    train(tmp_path, CONFIG, CARD, recipe, lambda start: iter([batch] * 100), mesh=ONE)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < 0.5 * log[0]["loss"]
