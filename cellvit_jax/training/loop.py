"""The training loop: it shows how it goes, saves as it goes, and goes on where it was."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from cellvit_jax import checkpoint, hosts
from cellvit_jax.card import ModelCard
from cellvit_jax.data.pipeline import Batch
from cellvit_jax.errors import CellViTError
from cellvit_jax.models import EncoderConfig
from cellvit_jax.sharding import put_batch
from cellvit_jax.training.calibrate import calibrate
from cellvit_jax.training.logs import Logs
from cellvit_jax.training.progress import Bar
from cellvit_jax.training.recipes import Recipe
from cellvit_jax.training.state import Layout, TrainState, begin, new_layout, read_weights, trained
from cellvit_jax.training.states import Standing, States
from cellvit_jax.training.step import make_step
from cellvit_jax.training.stopping import Stopping
from cellvit_jax.training.task import Task

Pictures = Mapping[str, np.ndarray]
VITAL = {"loss": "the loss", "grad_norm": "the norm of the gradients"}  # must be finite
CALIBRATION_SHARE = 0.1  # of the recipe's batches, for weights that are only measured


class Validation(NamedTuple):
    """How a network is scored: `score` gives figures, of which one tells the best, and overlays.

    Every process of a run scores the same network, and must come to the same figures.
    """

    score: Callable[[Any], tuple[dict[str, float], Pictures]]
    every: int = 1  # epochs
    patience: int = 0  # scores without a better one until the run ends; 0: never
    figure: str = "bpq"  # the more the better


class Outcome(NamedTuple):
    """How a run ended: `stopped` by a signal, or `early`; `idle` is the share of its time that
    went into validation and saving."""

    steps: int
    stopped: bool
    early: bool
    best: float | None
    idle: float


def train(
    run: str | Path,
    config: EncoderConfig,
    card: ModelCard,
    recipe: Recipe,
    batches: Callable[[int], Iterator[Batch]],
    *,
    task: Task | None = None,
    weights: Mapping[str, Any] | None = None,
    start_from: str | Path | None = None,
    mesh: Mesh | None = None,
    validation: Validation | None = None,
    keep: int = 2,
    loggers: Sequence[str] = (),
    quiet: bool = True,
) -> Outcome:
    """Train for `recipe.steps`, or go on with the run in folder `run` if there is one.

    `batches(step)` yields the batches from `step` on, or this process's part of them
    (`sharding.part_of_batch`); what is learnt from them is `task`, by default `task.Supervised`. A
    new run begins with `weights` (see `state.begin`), those of the checkpoint `start_from`, or
    random ones. All devices take part, or those of `mesh`. Writes `run/log.jsonl` (a line a step),
    `run/state/` (to go on from, the last `keep` ones) and the checkpoint directories `run/best/`,
    by score, and at the end `run/last/`.

    SIGTERM and SIGINT save the state and end the run between two steps. A loss or a gradient that
    is not finite raises `CellViTError`; the batch is kept in `run/bad-batch.npz`.
    """
    run = Path(run).resolve()
    run.mkdir(parents=True, exist_ok=True)
    layout = new_layout(config, card, recipe, mesh, task)
    with States(run / "state", keep) as states:
        start = states.step
        if start:
            state, standing = states.load(layout)
        else:
            given = weights if start_from is None else read_weights(layout, start_from)
            state, standing = begin(layout, given), Standing()
        opened = partial(Logs, run, start, loggers, active=hosts.is_first())
        with (
            hosts.together(opened) as logs,
            Bar(recipe.steps, start, recipe.batch_size, quiet=quiet) as bar,
        ):
            loop = Loop(run, layout, batches, validation, states, logs, bar, standing)
            return loop.go(start, state)


@dataclasses.dataclass
class Loop:
    """A run under way."""

    run: Path
    layout: Layout
    batches: Callable[[int], Iterator[Batch]]
    validation: Validation | None
    states: States
    logs: Logs
    bar: Bar
    standing: Standing
    idle: float = 0.0
    pending: tuple[int, Batch, dict[str, jax.Array]] | None = None

    def go(self, start: int, state: TrainState) -> Outcome:
        """All steps that are left, and the final weights."""
        began, steps = time.monotonic(), self.layout.recipe.steps
        with Stopping() as stopping, contextlib.closing(Stream(self.batches, start)) as stream:
            index, state = self.steps(start, state, stream, stopping)
            stopped, early = stopping.agreed(), self.has_waited()
        there = hosts.told((self.run / "last").exists())[0]
        if not stopped and (index > start or not there):
            self.finish(index, state)
        idle = self.idle / max(time.monotonic() - began, 1e-9)
        return Outcome(index, stopped, early and index < steps, self.standing.best, idle)

    def steps(
        self, index: int, state: TrainState, stream: Stream, stopping: Stopping
    ) -> tuple[int, TrainState]:
        """Steps until the last one, a signal, or too long without a better score."""
        recipe = self.layout.recipe
        step = {rests: make_step(self.layout, encoder_rests=rests) for rests in (True, False)}
        while index < recipe.steps and not self.has_waited() and not stopping.asked(index):
            batch = next(stream)
            on_device = {**put_batch(batch, self.layout.mesh), **self.layout.task.given}
            state, metrics = step[recipe.encoder_rests(index)](state, on_device)
            # read the metrics of the step before, so that the device never waits for the host
            self.report()
            self.pending = index, batch, metrics
            index += 1
            self.between(index, state)
        self.report()  # before the state is saved: a broken one must not be
        self.states.save(index, state, self.standing)
        return index, state

    def report(self) -> None:
        """Log the metrics of the last step that has not been; raise if they tell of a broken state.

        A finite loss may have gradients that are not, and leaves weights that are not either.
        """
        if self.pending is None:
            return
        index, batch, metrics = self.pending
        self.pending = None
        values = {name: float(value) for name, value in metrics.items()}
        self.bar.step(index, values)
        self.logs.write(index, values | {"images_per_second": self.bar.rate})
        for name, words in VITAL.items():
            if not math.isfinite(values[name]):
                self.give_up(index, batch, f"{words} is {values[name]}")

    def give_up(self, index: int, batch: Batch, what: str) -> NoReturn:
        """Keep the batch of a step that went wrong, and raise."""
        path = self.run / "bad-batch.npz"
        whole: Any = hosts.on_host(put_batch(batch, self.layout.mesh))
        hosts.by_first(lambda: np.savez(path, step=index, **whole))
        raise CellViTError(
            f"{what} at step {index}: lower the learning rate. Its batch is in {path}; the last "
            f"good state stays in {self.run / 'state'}"
        )

    def between(self, index: int, state: TrainState) -> None:
        """What is due when so many steps are made: a score, a save."""
        recipe, validation = self.layout.recipe, self.validation
        scored = validation and index % (recipe.steps_per_epoch * validation.every) == 0
        if not scored and index % recipe.save_every:
            return
        self.report()
        began = time.monotonic()
        if scored:
            self.score(index, self.model(state, CALIBRATION_SHARE))
        self.states.save(index, state, self.standing)
        spent = time.monotonic() - began
        self.idle += spent
        self.bar.pause(spent)

    def score(self, index: int, model: Any) -> None:
        """Measure a network, and keep it as the best if it is."""
        assert self.validation is not None
        figures, pictures = self.validation.score(model)
        before, self.standing = self.standing, self.standing.after(figures[self.validation.figure])
        self.logs.write(index - 1, figures, pictures)
        better = self.standing.best != before.best
        shown = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
        self.bar.say(f"step {index:<8}{shown}{'  (best)' * better}")
        if better:
            self.save("best", model)

    def model(self, state: TrainState, share: float = 1.0) -> Any:
        """The network as it stands, its batch statistics measured; whole on every host."""
        recipe, mesh = self.layout.recipe, self.layout.mesh
        model = trained(self.layout, state)
        count = math.ceil(recipe.calibration_batches * share)
        with contextlib.closing(Stream(self.batches, recipe.steps)) as stream:
            images = ({"image": batch["image"]} for batch in islice(stream, count))
            calibrate(model, (put_batch(image, mesh) for image in images))
        nnx.update(model, hosts.on_host(nnx.state(model)))
        return model

    def finish(self, index: int, state: TrainState) -> None:
        """The final weights, which are the best if nothing else says so."""
        began = time.monotonic()
        model = self.model(state)
        if self.validation is None:
            self.save("best", model)
        elif not self.has_waited():
            self.score(index, model)
        self.save("last", model)  # at the very end: it says that there is nothing left to do
        self.idle += time.monotonic() - began

    def save(self, name: str, model: Any) -> None:
        """Write a checkpoint directory."""
        weights = nnx.state(model, checkpoint.WEIGHTS)
        checkpoint.save(self.run / name, weights, self.layout.config, self.layout.card)

    def has_waited(self) -> bool:
        """Whether scores have been no better for too long."""
        patience = 0 if self.validation is None else self.validation.patience
        return 0 < patience <= self.standing.waited


class Stream(Iterator[Batch]):
    """The batches from a step on; `close` ends what works ahead."""

    def __init__(self, batches: Callable[[int], Iterator[Batch]], start: int):
        self._batches = batches(start)

    def __next__(self) -> Batch:
        return next(self._batches)

    def close(self) -> None:
        """End the threads of a `pipeline.Batches`."""
        if hasattr(self._batches, "close"):
            self._batches.close()
