"""What `cellvit-jax train` does, from its arguments to the last sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from cellvit_jax import sharding
from cellvit_jax.data.dataset import Dataset
from cellvit_jax.data.pipeline import Batch, RandomTile, batches
from cellvit_jax.errors import InputError
from cellvit_jax.evaluation.annotated import validate
from cellvit_jax.evaluation.network import segment_sample
from cellvit_jax.exports import overlay
from cellvit_jax.inference.segment import predictor_of
from cellvit_jax.models import CellViT
from cellvit_jax.training import config as configs
from cellvit_jax.training import loop, start
from cellvit_jax.training.config import RECIPES, RunConfig, Source
from cellvit_jax.training.fields import open_fields
from cellvit_jax.training.recipes import Recipe

PICTURES = 2  # overlays a score
SHOWN = 512  # pixels of an overlay's field
Figures = dict[str, float]


class Job(NamedTuple):
    """A run made ready: its config, its network, its data."""

    config: RunConfig
    recipe: Recipe  # the config's, with its steps per epoch
    network: start.Start
    batches: Callable[[int], Iterator[Batch]]
    measured: Dataset | None
    news: tuple[str, ...]


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
    network = start.find(config.model, fields.learnt, tile=recipe.tile, seed=recipe.seed)
    tiles = RandomTile(
        fields.learnt.samples,
        fields.weights,
        recipe.tile,
        recipe.augmentation,
        regression=network.config.regression_loss,
    )
    stream = partial(
        batches,
        tiles,
        recipe.batch_size,
        seed=recipe.seed,
        threads=config.threads,
        workers=config.workers,
        shard=(jax.process_index(), jax.process_count()),
    )
    make = one_batch(stream) if config.overfit_one_batch else lambda step: stream(start=step)
    measured = None if config.overfit_one_batch else fields.measured
    return Job(config, recipe, network, make, measured, network.news + fields.news)


def one_batch(stream: Callable[..., Iterator[Batch]]) -> Callable[[int], Iterator[Batch]]:
    """The first batch, again and again."""
    first = stream(start=0)
    batch = next(first)
    first.close()  # type: ignore[attr-defined]
    return lambda step: repeat(batch)


def run(config: RunConfig, out: Path, *, quiet: bool = False) -> loop.Outcome:
    """Train, or go on, in the folder `out`. Raises `OutputError` where it holds another run."""
    job = prepare(config)
    main = jax.process_index() == 0
    if main:
        configs.keep(config, out)
    say = print if main and not quiet else lambda *_: None
    for line in (*job.news, f"steps        {job.recipe.steps:,} of {job.recipe.batch_size} tiles"):
        say(line)
    outcome = loop.train(
        out,
        job.network.config,
        job.network.card,
        job.recipe,
        job.batches,
        weights=job.network.weights,
        mesh=sharding.make_mesh(**dataclasses.asdict(config.devices)),
        validation=validation(job),
        keep=config.keep,
        loggers=config.loggers,
        quiet=quiet or not main,
    )
    say(sentence(outcome, out))
    return outcome


def sentence(outcome: loop.Outcome, out: Path) -> str:
    """How a run ended, and what to do next."""
    if outcome.stopped:
        return (
            f"stopped after step {outcome.steps:,}, which is saved: go on with "
            f"`cellvit-jax train --config {out / 'config.json'}`"
        )
    best = "" if outcome.best is None else f", validation bPQ {outcome.best:.4f}"
    early = ", early: scores got no better" if outcome.early else ""
    return (
        f"trained      {outcome.steps:,} steps{early}; {outcome.idle:.0%} of the time went into "
        f"validation and saving\n"
        f"wrote        {out / 'best'}{best}\n"
        f"next         cellvit-jax segment IMAGE --model {out / 'best'} --out RESULTS"
    )


def validation(job: Job) -> loop.Validation | None:
    """How the run's network is measured, if it is."""
    if job.measured is None:
        return None
    chosen = job.config.validation
    return loop.Validation(partial(score, job.measured), chosen.every, chosen.patience)


def score(data: Dataset, model: CellViT) -> tuple[Figures, dict[str, np.ndarray]]:
    """bPQ, mPQ and F1 of a network as means over fields, and overlays of the first ones."""
    mean = validate(model, data).image_mean
    predictor = predictor_of(model)
    pictures = {}
    for index in range(min(PICTURES, len(data.samples))):
        sample = data.samples[index]
        image = np.ascontiguousarray(sample.image[:SHOWN, :SHOWN])
        shown = dataclasses.replace(sample, image=image)
        pictures[sample.name] = overlay.draw(segment_sample(shown, predictor).cells, image)
    return {name: mean[name] for name in ("bpq", "mpq", "f1") if name in mean}, pictures
