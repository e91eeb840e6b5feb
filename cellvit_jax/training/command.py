"""The arguments of `cellvit-jax train`, made a config and a folder."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cellvit_jax import hosts, zoo
from cellvit_jax.errors import InputError
from cellvit_jax.training import config as configs
from cellvit_jax.training import dry_run as dry
from cellvit_jax.training import run as runs
from cellvit_jax.training.config import RECIPES, RunConfig
from cellvit_jax.training.plain import unknown


class Arguments(NamedTuple):
    """What was said on the command line."""

    data: tuple[str, ...]
    model: str | None = None
    out: Path | None = None
    recipe: str | None = None
    config: Path | None = None
    assignments: tuple[str, ...] = ()
    overfit_one_batch: bool = False


def run(arguments: Arguments, *, dry_run: bool = False, quiet: bool = False) -> bool:
    """Train as the arguments say; whether a signal stopped it. Raises `InputError`."""
    config = hosts.together(partial(config_of, arguments))
    if dry_run:
        dry.show(partial(runs.prepare, config))
        return False
    return runs.run(config, folder(arguments, config), quiet=quiet).stopped


def config_of(arguments: Arguments) -> RunConfig:
    """The whole config, with what was set on the command line."""
    if arguments.recipe is not None and arguments.recipe not in RECIPES:
        raise InputError(unknown(f"recipe {arguments.recipe}", arguments.recipe, RECIPES))
    if arguments.config is None:
        model = arguments.model or zoo.DEFAULT
        config = runs.new_config(arguments.data, model, arguments.recipe, arguments.assignments)
    elif arguments.data or arguments.model or arguments.recipe:
        raise InputError("--config has data, model and recipe already: change them with --set")
    else:
        config = configs.read(arguments.config, RunConfig).changed(arguments.assignments)
    if arguments.overfit_one_batch:
        config = dataclasses.replace(config, overfit_one_batch=True)
    return config


def folder(arguments: Arguments, config: RunConfig) -> Path:
    """Where the run is: as told, beside its own config.json, or `runs/MODEL-DATA`."""
    if arguments.out is not None:
        return arguments.out
    if arguments.config is not None and (arguments.config.parent / "log.jsonl").exists():
        return arguments.config.parent
    return runs.default_run(config)
