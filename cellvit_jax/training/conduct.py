"""How a run goes, whatever it trains: made ready, its folder claimed, trained, and summed up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import jax
from jax.sharding import Mesh

from cellvit_jax import caches, hosts, sharding
from cellvit_jax.card import ModelCard
from cellvit_jax.data.pipeline import Batch, batches
from cellvit_jax.errors import OutputError
from cellvit_jax.models import EncoderConfig
from cellvit_jax.training import config as configs
from cellvit_jax.training import loop
from cellvit_jax.training.config import Config
from cellvit_jax.training.recipes import Recipe
from cellvit_jax.training.task import Task

if TYPE_CHECKING:
    import grain

Batches = Callable[[int], Iterator[Batch]]


class Start(Protocol):
    """The network that a run begins with; what `weights` lack is drawn."""

    @property
    def config(self) -> EncoderConfig: ...
    @property
    def card(self) -> ModelCard: ...
    @property
    def weights(self) -> Mapping[str, Any]: ...


class Ready(Protocol):
    """A run made ready; a task of None is the supervised one. `news` are lines for people."""

    @property
    def recipe(self) -> Recipe: ...
    @property
    def network(self) -> Start: ...
    @property
    def task(self) -> Task | None: ...
    @property
    def mesh(self) -> Mesh: ...
    @property
    def batches(self) -> Batches: ...
    @property
    def validation(self) -> loop.Validation | None: ...
    @property
    def news(self) -> Sequence[str]: ...


def conduct(
    config: Config,
    out: Path,
    prepare: Callable[[], Ready],
    sentence: Callable[[loop.Outcome, Path], str],
    *,
    quiet: bool,
) -> loop.Outcome:
    """Train what `prepare` makes ready, or go on, in the folder `out`; `sentence` is the last one.

    Raises `OutputError` where the folder holds another run.
    """
    caches.keep_compiled_programs()
    job = hosts.together(prepare)
    claim(config, out)
    quiet = quiet or not hosts.is_first()
    say = (lambda *_: None) if quiet else print
    for line in (*job.news, f"steps        {amount(job.recipe)}"):
        say(line)
    outcome = loop.train(
        out,
        job.network.config,
        job.network.card,
        job.recipe,
        job.batches,
        task=job.task,
        weights=job.network.weights,
        mesh=job.mesh,
        validation=job.validation,
        keep=config.keep,
        loggers=config.loggers,
        quiet=quiet,
    )
    say(sentence(outcome, out))
    return outcome


def amount(recipe: Recipe) -> str:
    """How much a run looks at, in words."""
    return f"{recipe.steps:,} of {recipe.batch_size} tiles"


def stream(
    config: Config, tiles: grain.transforms.RandomMap, mesh: Mesh, count: int | None = None
) -> Batches:
    """The batches of tiles from a step on, or this process's part: see `pipeline.batches`."""
    make = partial(
        batches,
        tiles,
        config.recipe.batch_size,
        seed=config.recipe.seed,
        count=count,
        threads=config.threads,
        workers=config.workers,
        shard=sharding.part_of_batch(mesh),
    )
    return lambda step: make(start=step)


def claim(config: Config, out: Path) -> None:
    """Make the folder of the run, which all processes see and have the same config for."""
    hosts.by_first(partial(configs.keep, config, out))
    hosts.together(partial(check_shared, config, out))


def check_shared(config: Config, out: Path) -> None:
    """Raises `OutputError` where process 0 wrote `out` elsewhere, or has another config."""
    if not (out / "config.json").exists():
        raise OutputError(
            f"process {jax.process_index()} does not find {out / 'config.json'}, which process 0 "
            "wrote: all hosts need a file system that they share"
        )
    configs.keep(config, out)
