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
from orbax.checkpoint import v1 as ocp
from rich.progress import Progress

from cellvit_jax import checkpoint
from cellvit_jax.card import ModelCard
from cellvit_jax.data.pipeline import Batch
from cellvit_jax.errors import CellViTError
from cellvit_jax.models import CellViT, ModelConfig
from cellvit_jax.training.calibrate import calibrate
from cellvit_jax.training.recipes import Recipe
from cellvit_jax.training.step import make_step


def train(
    run: str | Path,
    config: ModelConfig,
    card: ModelCard,
    recipe: Recipe,
    batches: Callable[[int], Iterator[Batch]],
    *,
    start_from: str | Path | None = None,
) -> None:
    """Train for `recipe.steps`, or go on with the run in folder `run` if there is one.

    `batches(step)` yields the batches from `step` on. A new run begins with random weights, or
    with those of `start_from`, a checkpoint of the same architecture. Writes `run/log.jsonl` (a
    line a step), `run/state/` (to resume from) and, at the end, the checkpoint directory
    `run/last/`.
    """
    run = Path(run).resolve()
    run.mkdir(parents=True, exist_ok=True)
    graphdef, state = _new_state(config, recipe)
    kept = ocp.training.preservation_policies.LatestN(2)
    with (
        ocp.training.Checkpointer(run / "state", preservation_policy=kept) as states,
        (run / "log.jsonl").open("a+") as log,
        Progress() as progress,
    ):
        start = 0
        if states.latest is not None:
            start = states.latest.step
            state = states.load(start, state)
        elif start_from is not None:
            state = _with_weights(graphdef, state, start_from)
        _forget(log, start)
        step = make_step(graphdef, recipe.objective)
        task = progress.add_task("training", total=recipe.steps, completed=start)
        stream, pending = batches(start), None
        for index in range(start, recipe.steps):
            state, metrics = step(state, next(stream))
            if (index + 1) % recipe.save_every == 0 or index + 1 == recipe.steps:
                states.save_async(index + 1, state, force=True)
            # read the metrics of the step before, so that the device never waits for the host
            if pending:
                _report(log, *pending)
            pending = (index, metrics)
            progress.advance(task)
        if pending:
            _report(log, *pending)
    model, _ = nnx.merge(graphdef, state)
    calibrate(model, recipe.objective, islice(batches(recipe.steps), recipe.calibration_batches))
    checkpoint.save(run / "last", nnx.state(model, checkpoint.WEIGHTS), config, card)


def _new_state(config: ModelConfig, recipe: Recipe) -> tuple[nnx.GraphDef, nnx.State]:
    def make() -> tuple[CellViT, nnx.Optimizer]:
        model = CellViT(config, rngs=nnx.Rngs(recipe.seed))
        return model, nnx.Optimizer(model, recipe.optimizer(), wrt=nnx.Param)

    graphdef, _ = nnx.split(nnx.eval_shape(make))
    return graphdef, jax.jit(lambda: nnx.state(make()))()


def _with_weights(graphdef: nnx.GraphDef, state: nnx.State, source: str | Path) -> nnx.State:
    """The state with the parameters and batch statistics of the checkpoint at `source`."""
    model, optimizer = nnx.merge(graphdef, state)
    nnx.update(model, nnx.state(checkpoint.load(source), checkpoint.WEIGHTS))
    return nnx.state((model, optimizer))


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
