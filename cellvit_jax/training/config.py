"""A run's whole config: what it trains on, from where on, by which recipe, on which devices."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from cellvit_jax.card import Stain
from cellvit_jax.errors import InputError, OutputError
from cellvit_jax.files import atomic_open
from cellvit_jax.training import plain
from cellvit_jax.training.recipes import Recipe, demo, finetune, pannuke

RecipeName = Literal["finetune", "pannuke", "demo"]
RECIPES: dict[str, Callable[[], Recipe]] = {"finetune": finetune, "pannuke": pannuke, "demo": demo}
Logger = Literal["tensorboard", "wandb"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Annotated data in any layout, and its part of the tiles, relative to other sources.

    Without a name of a split it is "train", or the only one; without one of a layout, that which
    fits.
    """

    path: str
    split: str = ""
    layout: str = ""
    share: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Validation:
    """What the network is measured on as it learns, and when that ends the run.

    Without a path it is the first source's; without a split its "val", "valid" or "validation", and
    where there is none every n-th field is held out, `held_out` of all. Every `every` epochs the
    weights are scored on at most `fields` of them (0: all); those with the best bPQ are kept.
    After `patience` scores without a better one the run ends; 0 stands for never.
    """

    path: str = ""
    split: str = ""
    held_out: float = 0.2
    every: int = 1
    fields: int = 0
    patience: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Devices:
    """How weights are divided: see `sharding.make_mesh`."""

    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What the configs of all runs have: plain values that JSON can hold and a command line set.

    Tiles are made by `threads`, or by those of each of `workers` processes. The last `keep` states
    are kept.
    """

    recipe: Recipe
    devices: Devices = field(default_factory=Devices)
    threads: int = 2
    workers: int = 0
    keep: int = 2
    loggers: tuple[Logger, ...] = ("tensorboard",)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def changed(self, assignments: Sequence[str]) -> Self:
        """With values set as `recipe.schedule.peak=1e-4` says. Raises `InputError`."""
        values = self.to_dict()
        for assignment in assignments:
            plain.override(values, assignment)
        return plain.build(type(self), values)


C = TypeVar("C", bound=Config)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(Config):
    """Everything that decides what a run computes, as plain values.

    `model` is the name of an architecture (`cellvit-tiny`) to begin with random weights, the folder
    or name of a CellViT to go on from, or the folder of an encoder. With `stain` "macenko" the
    network sees images in the colours of one staining, now and ever after; one that was trained so
    needs not be told.
    """

    data: tuple[Source, ...]
    model: str
    stain: Stain = ""
    validation: Validation = field(default_factory=Validation)
    overfit_one_batch: bool = False


def read(path: Path, kind: type[C]) -> C:
    """The config of that kind in a JSON file. Raises `InputError` that says what does not fit."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable config: {error}") from error
    return plain.build(kind, values)


def keep(config: Config, run: Path) -> None:
    """Write `run/config.json`. Raises `OutputError` where the run there has another config."""
    path, values = run / "config.json", config.to_dict()
    if path.exists():
        different = plain.differences(read(path, type(config)).to_dict(), values)
        if different:
            raise OutputError(
                f"{run} holds a run with another config: choose another --out, or go on with "
                f"--config {path}. Different are\n" + "\n".join(different)
            )
        return
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise OutputError(f"{run} exists and is no training run: choose another --out")
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {run}: {error.strerror}") from error
    with atomic_open(path) as file:
        file.write((json.dumps(values, indent=1) + "\n").encode())
