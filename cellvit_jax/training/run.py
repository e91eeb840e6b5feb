"""What `cellvit-jax train` does, from its arguments to the last sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from cellvit_jax import hosts, sharding
from cellvit_jax.data.dataset import Dataset
from cellvit_jax.data.normalise import normalised
from cellvit_jax.data.pipeline import RandomTile
from cellvit_jax.errors import InputError
from cellvit_jax.evaluation.annotated import validate
from cellvit_jax.evaluation.network import segment_sample
from cellvit_jax.evaluation.summary import Evaluation
from cellvit_jax.exports import overlay
from cellvit_jax.inference.segment import predictor_of
from cellvit_jax.models import CellViT
from cellvit_jax.training import loop, start
from cellvit_jax.training.conduct import Batches, conduct, stream
from cellvit_jax.training.config import RECIPES, RunConfig, Source, Validation
from cellvit_jax.training.fields import at_hand, open_fields
from cellvit_jax.training.recipes import Recipe
from cellvit_jax.training.task import Task

PICTURES = 2  # overlays a score
SHOWN = 512  # pixels of an overlay's field
Figures = dict[str, float]


class Job(NamedTuple):
    """A run made ready: its config, its network, its devices, its data."""

    config: RunConfig
    recipe: Recipe  # the config's, with its steps per epoch
    network: start.Start
    mesh: Mesh
    batches: Batches
    measured: Dataset | None
    news: tuple[str, ...]
    task: Task | None = None  # the supervised one

    @property
    def validation(self) -> loop.Validation | None:
        """How the network is measured, if it is."""
        return validation_on(self.measured, self.config.validation)


def new_config(
    data: Sequence[str], model: str, recipe: str | None, assignments: Sequence[str] = ()
) -> RunConfig:
    """A config of defaults, with some values set. Raises `InputError` for what does not fit."""
    if not data:
        raise InputError("say what to train on: --data FOLDER (or --config FILE)")
    name = recipe or ("demo" if start.is_preset(model) else "finetune")
    sources = tuple(Source(path=path) for path in data)
    config = RunConfig(data=sources, model=model, recipe=RECIPES[name]())
    return config.changed(assignments)


def default_run(config: RunConfig) -> Path:
    """`runs/MODEL-DATA`."""
    return Path("runs") / f"{Path(config.model).name}-{Path(config.data[0].path).resolve().name}"


def prepare(config: RunConfig) -> Job:
    """Open the data and find the network. Raises `InputError` for what does not fit together."""
    fields = open_fields(config)
    recipe = config.recipe.over(len(fields.learnt.samples))
    mesh = sharding.make_mesh(**dataclasses.asdict(config.devices))
    network = start.find(config.model, fields.learnt, tile=recipe.tile, seed=recipe.seed)
    if config.stain:
        network = network.with_stain(config.stain)
    learnt = fields.learnt.samples
    tiles = RandomTile(
        at_hand(normalised(learnt)) if network.card.stain else learnt,
        fields.weights,
        recipe.tile,
        recipe.augmentation,
        regression=network.config.regression_loss,
    )
    from_step = stream(config, tiles, mesh)
    make = one_batch(from_step) if config.overfit_one_batch else from_step
    measured = None if config.overfit_one_batch else fields.measured
    return Job(config, recipe, network, mesh, make, measured, network.news + fields.news)


def one_batch(batches: Batches) -> Batches:
    """The first batch, again and again."""
    with closing(loop.Stream(batches, 0)) as stream:
        batch = next(stream)
    return lambda step: repeat(batch)


def run(config: RunConfig, out: Path, *, quiet: bool = False) -> loop.Outcome:
    """Train, or go on, in the folder `out`. Raises `OutputError` where it holds another run."""
    then = f"segment IMAGE --model {out / 'best'} --out RESULTS"
    last = partial(sentence, command="train", then=then)
    return conduct(config, out, partial(prepare, config), last, quiet=quiet)


def sentence(outcome: loop.Outcome, out: Path, *, command: str, then: str) -> str:
    """How a run of a command ended, and what to do next."""
    if outcome.stopped:
        return (
            f"stopped after step {outcome.steps:,}, which is saved: go on with "
            f"`cellvit-jax {command} --config {out / 'config.json'}`"
        )
    best = "" if outcome.best is None else f", validation bPQ {outcome.best:.4f}"
    early = ", early: scores got no better" if outcome.early else ""
    return (
        f"trained      {outcome.steps:,} steps{early}; {outcome.idle:.0%} of the time went into "
        f"validation and saving\n"
        f"wrote        {out / 'best'}{best}\n"
        f"next         cellvit-jax {then}"
    )


def validation_on(measured: Dataset | None, chosen: Validation) -> loop.Validation | None:
    """How a network is measured on annotated fields, if there are any."""
    if measured is None:
        return None
    return loop.Validation(partial(score, measured), chosen.every, chosen.patience)


def score(data: Dataset, model: CellViT) -> tuple[Figures, dict[str, np.ndarray]]:
    """bPQ, mPQ and F1 of a network as means over fields, and overlays of the first ones."""
    mean = measure(data, model).image_mean
    pictures = overlays(data, model) if hosts.is_first() else {}
    return {name: mean[name] for name in ("bpq", "mpq", "f1") if name in mean}, pictures


def measure(data: Dataset, model: CellViT) -> Evaluation:
    """The scores of all fields, of which each process measures its share."""
    index, count = jax.process_index(), jax.process_count()
    share = dataclasses.replace(data, samples=data.samples[index::count])
    parts: list[Any] = hosts.told(validate(model, share) if len(share.samples) else None)
    images: list = [None] * len(data.samples)
    for number, part in enumerate(parts):
        images[number::count] = part.images if part else ()
    return dataclasses.replace(parts[0], images=tuple(images))


def overlays(data: Dataset, model: CellViT) -> dict[str, np.ndarray]:
    """What is found in the first fields, drawn over them."""
    predictor = predictor_of(model)
    pictures = {}
    for index in range(min(PICTURES, len(data.samples))):
        sample = data.samples[index]
        image = np.ascontiguousarray(sample.image[:SHOWN, :SHOWN])
        shown = dataclasses.replace(sample, image=image)
        pictures[sample.name] = overlay.draw(segment_sample(shown, predictor).cells, image)
    return pictures
