"""The training loop: resumable, saving as it goes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TextIO

import jax
from flax import nnx
from jax.sharding import Mesh
from orbax.checkpoint import v1 as ocp
from rich.progress import Progress

from cellvit_jax import checkpoint
from cellvit_jax.card import ModelCard
from cellvit_jax.data.pipeline import Batch
from cellvit_jax.errors import CellViTError
from cellvit_jax.models import ModelConfig
from cellvit_jax.sharding import put_batch
from cellvit_jax.training.calibrate import calibrate
from cellvit_jax.training.recipes import Recipe
from cellvit_jax.training.state import begin, new_layout, read_weights, trained
from cellvit_jax.training.step import make_step


def train(
    run: str | Path,
    config: ModelConfig,
    card: ModelCard,
    recipe: Recipe,
    batches: Callable[[int], Iterator[Batch]],
    *,
    start_from: str | Path | None = None,
    mesh: Mesh | None = None,
) -> None:
    """Train for `recipe.steps`, or go on with the run in folder `run` if there is one.

    `batches(step)` yields the batches from `step` on. A new run begins with random weights, or
    with those of `start_from`, a checkpoint of the same architecture. All devices take part, or
    those of `mesh`. Writes `run/log.jsonl` (a
    line a step), `run/state/` (to resume from) and, at the end, the checkpoint directory
    `run/last/`.
    """
    run = Path(run).resolve()
    run.mkdir(parents=True, exist_ok=True)
    layout = new_layout(config, card, recipe, mesh)
    steps = {rests: make_step(layout, encoder_rests=rests) for rests in (True, False)}
    kept = ocp.training.preservation_policies.LatestN(2)
    with (
        ocp.training.Checkpointer(run / "state", preservation_policy=kept) as states,
        (run / "log.jsonl").open("a+") as log,
        Progress() as progress,
    ):
        if states.latest is not None:
            start, state = states.latest.step, states.load(states.latest.step, layout.abstract)
        else:
            weights = None if start_from is None else read_weights(layout, start_from)
            start, state = 0, begin(layout, weights)
        _forget(log, start)
        task = progress.add_task("training", total=recipe.steps, completed=start)
        stream, pending = batches(start), None
        for index in range(start, recipe.steps):
            batch = put_batch(next(stream), layout.mesh)
            state, metrics = steps[recipe.encoder_rests(index)](state, batch)
            if (index + 1) % recipe.save_every == 0 or index + 1 == recipe.steps:
                states.save_async(index + 1, state, force=True)
            # read the metrics of the step before, so that the device never waits for the host
            if pending:
                _report(log, *pending)
            pending = (index, metrics)
            progress.advance(task)
        if pending:
            _report(log, *pending)
    model = trained(layout, state)
    calibrate(model, islice(batches(recipe.steps), recipe.calibration_batches))
    checkpoint.save(run / "last", nnx.state(model, checkpoint.WEIGHTS), config, card)


def _forget(log: TextIO, start: int) -> None:
    """Drop the lines of steps that will be done again."""
    log.seek(0)
    kept = [line for line in log if json.loads(line)["step"] < start]
    log.truncate(0)
    log.writelines(kept)


def _report(log: TextIO, index: int, metrics: dict[str, jax.Array]) -> None:
    values = {name: float(value) for name, value in metrics.items()}
    log.write(json.dumps({"step": index, "time": round(time.time(), 1)} | values) + "\n")
    log.flush()
    if not values["loss"] < float("inf"):
        raise CellViTError(f"the loss is {values['loss']} at step {index}: lower the learning rate")
