"""What `cellvit-jax pretrain` does, from its config to the last sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from jax.sharding import Mesh

from cellvit_jax import hosts, sharding
from cellvit_jax.errors import InputError
from cellvit_jax.inference.progress import watch
from cellvit_jax.models.encoder import check_size
from cellvit_jax.pretraining import encoders, labels, pictures
from cellvit_jax.pretraining.methods import Supervised, TileConfig
from cellvit_jax.pretraining.tiles import Picture, Tiles, find
from cellvit_jax.pretraining.views import Views
from cellvit_jax.training import conduct as conducting
from cellvit_jax.training import config as configs
from cellvit_jax.training import loop
from cellvit_jax.training.conduct import Batches
from cellvit_jax.training.recipes import Recipe
from cellvit_jax.training.task import Task

MEASURED = 2000  # tiles at most, on either side of a comparison


class Data(NamedTuple):
    """What is learnt from, and with labels what is measured on, if anything."""

    learnt: Tiles
    measured: Tiles | None
    classes: tuple[str, ...]
    news: str


class Job(NamedTuple):
    """A run made ready: its config, its encoder, its task, its batches."""

    config: TileConfig
    recipe: Recipe  # the config's, with its steps per epoch
    network: encoders.Start
    task: Task
    mesh: Mesh
    batches: Batches
    data: Data

    @property
    def news(self) -> tuple[str, ...]:
        """What is worth a line before the run."""
        return self.network.news, self.data.news

    @property
    def validation(self) -> loop.Validation | None:
        """How the encoder is measured, if it is."""
        if self.data.measured is None:
            return None
        known, measured = (t.at_most(MEASURED) for t in (self.data.learnt, self.data.measured))
        score = partial(labels.score, known, measured, self.config.method.pool)
        return loop.Validation(score, figure="knn")


def prepare(config: TileConfig, *, quiet: bool = True) -> Job:
    """Find the tiles and the encoder. Raises `InputError` for what does not fit together."""
    how = f"Pretrained by {config.method.name} on {', '.join(map(name, config.data))}"
    recipe = config.recipe
    encoder = encoders.find(config.encoder, mpp=config.mpp, tile=recipe.tile, how=how)
    for crops in config.method.crops.values():
        check_size((1, crops.side, crops.side, 3), encoder.config)
    data = open_data(config, quiet=quiet)
    config.check(len(data.learnt))
    recipe = recipe.over(len(data.learnt))
    task = config.method.task(encoder.config, recipe, len(data.classes))
    mesh = sharding.make_mesh(**dataclasses.asdict(config.devices))
    return Job(config, recipe, encoder, task, mesh, stream(config, data.learnt, mesh), data)


def name(source: configs.Source) -> str:
    """What a source is called."""
    return Path(source.path).resolve().name


def open_data(config: TileConfig, *, quiet: bool) -> Data:
    """The tiles that a config names."""
    if isinstance(config.method, Supervised):
        return _labelled(config, config.method.held_out, quiet)
    found = pictures.unlabelled(config.data, config.source_mpp)
    tiles, small = _find(config, found, quiet)
    return Data(tiles, None, (), news(tiles, len(found), small))


def _labelled(config: TileConfig, share: float, quiet: bool) -> Data:
    if len(config.data) != 1:
        raise InputError("labels come from one folder or CSV file: give --data once")
    found = pictures.labelled(config.data[0], share, config.source_mpp)
    tiles, small = _find(config, found.pictures, quiet)
    learnt, measured = tiles.of(~found.measured), tiles.of(found.measured)
    if not len(learnt):
        raise InputError(f"{config.data[0].path} leaves no tiles to learn from")
    told = news(learnt, len(found.pictures), small)
    told += f"\nclasses      {', '.join(found.classes)}; measured on {len(measured):,} other tiles"
    return Data(learnt, measured if len(measured) else None, found.classes, told)


def _find(config: TileConfig, found: Sequence[Picture], quiet: bool) -> tuple[Tiles, int]:
    return find(found, config.recipe.tile, config.mpp, watch=watch(quiet))


def news(tiles: Tiles, pictures: int, small: int) -> str:
    """What there is to learn from."""
    left = f"; {small:,} smaller ones are left out" if small else ""
    return (
        f"data         {len(tiles):,} tiles of {tiles.side}×{tiles.side} pixels in {pictures:,} "
        f"slides or images{left}"
    )


def stream(config: TileConfig, tiles: Tiles, mesh: Mesh) -> Batches:
    """The batches of views of tiles from a step on."""
    views = Views(tiles, config.method.crops, config.recipe.augmentation)
    return conducting.stream(config, views, mesh, len(tiles))


def run(config: TileConfig, out: Path, *, quiet: bool = False) -> loop.Outcome:
    """Train, or go on, in the folder `out`. Raises `OutputError` where it holds another run."""
    ready = partial(prepare, config, quiet=quiet or not hosts.is_first())
    return conducting.conduct(config, out, ready, sentence, quiet=quiet)


def sentence(outcome: loop.Outcome, out: Path) -> str:
    """How a run ended, and what to do next."""
    if outcome.stopped:
        return (
            f"stopped after step {outcome.steps:,}, which is saved: start it again in the same way "
            "to go on"
        )
    best = "last" if outcome.best is None else "best"
    told = "" if outcome.best is None else f", of {outcome.best:.4f} by nearest neighbours"
    return (
        f"trained      {outcome.steps:,} steps; {outcome.idle:.0%} of the time went into "
        "validation and saving\n"
        f"wrote        {out / best}{told}\n"
        f"next         cellvit-jax train --data FOLDER --model {out / best} --out RUN"
    )
