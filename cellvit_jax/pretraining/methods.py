"""The configs of pretraining on tiles: one kind for each method, all of plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from cellvit_jax.errors import InputError
from cellvit_jax.models import EncoderConfig
from cellvit_jax.pretraining.dino import SelfDistillation
from cellvit_jax.pretraining.labels import Classification
from cellvit_jax.pretraining.pooling import Pool
from cellvit_jax.pretraining.simclr import Contrast
from cellvit_jax.pretraining.views import Crops, stained
from cellvit_jax.training.config import Config, Source
from cellvit_jax.training.recipes import Recipe, Schedule
from cellvit_jax.training.task import Task

PAIR = Crops(count=2, side=224, smallest=0.5)
WHOLE = Crops(count=2, side=224, smallest=0.65)
PARTS = Crops(count=6, side=96, smallest=0.25, largest=0.65)
ONE = Crops(count=1, side=224, smallest=0.65)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimClr:
    """What is special to contrastive learning: see `simclr.Contrast`."""

    name: Literal["simclr"] = "simclr"
    views: Crops = PAIR
    pool: Pool = "mean"
    hidden: int = 2048
    dim: int = 128
    temperature: float = 0.1

    @property
    def crops(self) -> Mapping[str, Crops]:
        """What a batch consists of."""
        return {"views": self.views}

    def task(self, config: EncoderConfig, recipe: Recipe, classes: int) -> Task:
        """What is learnt."""
        return Contrast(config, recipe, self.pool, self.hidden, self.dim, self.temperature)

    def check(self, recipe: Recipe) -> None:
        """Raises `InputError` where a tile would have nothing to differ from."""
        if self.views.count != 2:
            raise InputError(f"contrast is between 2 views of a tile, not {self.views.count}")
        if recipe.batch_size < 2:
            raise InputError(
                "a batch of 1 has no other tiles to differ from: give recipe.batch_size=2 or more, "
                "the more the better"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dino:
    """What is special to self-distillation: see `dino.SelfDistillation`."""

    name: Literal["dino"] = "dino"
    whole: Crops = WHOLE
    parts: Crops | None = PARTS
    pool: Pool = "cls"
    hidden: int = 2048
    bottleneck: int = 256
    prototypes: int = 16384
    temperature: float = 0.1
    teacher_temperature: tuple[float, float] = (0.04, 0.07)
    warmup_steps: int = 1000
    rest_steps: int = 100
    centre_momentum: float = 0.9

    @property
    def crops(self) -> Mapping[str, Crops]:
        """What a batch consists of."""
        return {"whole": self.whole} | ({"parts": self.parts} if self.parts else {})

    def task(self, config: EncoderConfig, recipe: Recipe, classes: int) -> Task:
        """What is learnt."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return SelfDistillation(
            config, recipe, **{k: v for k, v in own.items() if k not in ("name", "whole", "parts")}
        )

    def check(self, recipe: Recipe) -> None:
        """Raises `InputError` where the student would have no teacher, or nothing to tell it."""
        if recipe.ema_decay is None:
            raise InputError("the teacher is an average of the student: give recipe.ema_decay")
        if sum(crops.count for crops in self.crops.values()) < 2:
            raise InputError("student and teacher must see different views: give two or more")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Supervised:
    """What is special to learning from the tiles' labels: see `labels.Classification`.

    Where the data has no part to measure on, it is `held_out` of the tiles.
    """

    name: Literal["supervised"] = "supervised"
    views: Crops = ONE
    pool: Pool = "mean"
    smoothing: float = 0.0
    held_out: float = 0.2

    @property
    def crops(self) -> Mapping[str, Crops]:
        """What a batch consists of."""
        return {"views": self.views}

    def task(self, config: EncoderConfig, recipe: Recipe, classes: int) -> Task:
        """What is learnt."""
        return Classification(config, recipe, classes, self.pool, self.smoothing)

    def check(self, recipe: Recipe) -> None:
        """Raises `InputError` for shares that are none."""
        if not 0 <= self.held_out < 1 or not 0 <= self.smoothing < 1:
            raise InputError("method.held_out and method.smoothing are shares from 0 up to 1")


Method = SimClr | Dino | Supervised


@dataclasses.dataclass(frozen=True, kw_only=True)
class TileConfig(Config):
    """Everything that decides what a run computes, as plain values.

    `encoder` is the name of an architecture to begin with random weights, or the folder or name of
    a network whose encoder goes on. Tiles have sides of `recipe.tile` pixels at `mpp`;
    `source_mpp` wins over what the data says of itself. An epoch looks at every tile once. Views
    are changed by `recipe.augmentation`, whose zoom follows from the crops; the recipe's `sampling`
    and `objective`, which are of nuclei, must be left as they are.
    """

    data: tuple[Source, ...]
    encoder: str
    method: Method
    mpp: float = 0.25
    source_mpp: float | None = None

    def check(self, tiles: int) -> None:
        """Raises `InputError` for values that have no part in this, or make no sense in it."""
        untouched = Recipe(epochs=1, batch_size=1)
        for name in ("sampling", "objective"):
            if getattr(self.recipe, name) != getattr(untouched, name):
                raise InputError(f"recipe.{name} is of annotated nuclei: it has no part here")
        if self.recipe.batch_size > tiles:
            raise InputError(
                f"there are {tiles} tiles, too few for a batch of {self.recipe.batch_size}: give "
                "more of them, or a smaller recipe.batch_size"
            )
        self.method.check(self.recipe)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimClrConfig(TileConfig):
    """A run of contrastive learning."""

    method: SimClr


@dataclasses.dataclass(frozen=True, kw_only=True)
class DinoConfig(TileConfig):
    """A run of self-distillation."""

    method: Dino


@dataclasses.dataclass(frozen=True, kw_only=True)
class SupervisedConfig(TileConfig):
    """A run on tiles with labels."""

    method: Supervised


def recipe(**fields: Any) -> Recipe:
    """That of all methods, but for some values."""
    values: dict[str, Any] = {
        "epochs": 100,
        "batch_size": 128,
        "augmentation": stained(),
        "schedule": Schedule(kind="cosine", peak=5e-4, warmup_steps=100),
        "betas": (0.9, 0.95),
        "weight_decay": 0.05,
        "clip_norm": 3.0,
    }
    return Recipe(**(values | fields))


def new_config(method: str, **fields: Any) -> TileConfig:
    """The config of a method, with its defaults. Raises `InputError` for another name."""
    if method == "simclr":
        return SimClrConfig(method=SimClr(), recipe=recipe(), **fields)
    if method == "dino":
        average = {"ema_decay": 0.996, "ema_schedule": "cosine", "drop_path_rate": 0.1}
        return DinoConfig(method=Dino(), recipe=recipe(**average), **fields)
    if method == "supervised":
        return SupervisedConfig(method=Supervised(), recipe=recipe(epochs=30), **fields)
    raise InputError(f"there is no method {method}: give simclr, dino or supervised")
