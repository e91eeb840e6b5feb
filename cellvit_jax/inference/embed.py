"""`cellvit-jax embed`: vectors of cells or of patches, made and resumed as segmentations are."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

from cellvit_jax import caches, checkpoint
from cellvit_jax.card import ModelCard
from cellvit_jax.errors import InputError
from cellvit_jax.inference import pipeline, results
from cellvit_jax.inference.patches import PATCHES, PatchPredictor
from cellvit_jax.inference.plan import Plan, planned
from cellvit_jax.inference.predictor import Predictor
from cellvit_jax.inference.run import Task
from cellvit_jax.inference.segment import predictor_of
from cellvit_jax.inference.slide_job import Options
from cellvit_jax.slides import Slide

Level = Literal["cells", "patches"]
POOLS = {"cells": ("box", "mask"), "patches": ("cls", "mean")}  # the first by default
STAGES = {"box": pipeline.CELLS, "mask": pipeline.MASKED_CELLS, "cls": PATCHES, "mean": PATCHES}


@dataclasses.dataclass(frozen=True)
class EmbedOptions(Options):
    """What is embedded and how; `tile` is the side of patches, by default what the
    encoder's positions were made for."""

    level: Level = "cells"
    pool: str = "box"
    tile: int | None = None

    @property
    def what(self) -> str:
        """What is counted."""
        return self.level

    @property
    def writers(self) -> Mapping[str, Any]:
        """What writes the files."""
        return results.EMBEDDINGS

    @property
    def stages(self) -> pipeline.Stages:
        """What becomes of the network's maps."""
        return STAGES[self.pool]

    def plan(self, slide: Slide, card: ModelCard) -> Plan:
        """What of a slide is looked at; patches overlap as little as can be. Raises InputError."""
        margin = 0 if self.level == "patches" else None
        where, roi = self.tissue, self.roi
        return planned(slide, card, tile=self.tile, where=where, roi=roi, margin=margin)


@dataclasses.dataclass(unsafe_hash=True)
class EmbedTask(Task):
    """The embedding of every slide of a run."""

    options: EmbedOptions = EmbedOptions()

    @functools.cached_property
    def predictor(self) -> Predictor:
        """The network, loaded on first use. Raises CheckpointError, InputError."""
        caches.keep_compiled_programs()
        model = checkpoint.load(self.model)
        if self.options.level == "patches":
            pool, tile = self.options.pool, self.options.tile
            return PatchPredictor(model, pool, tile, self.batch_size)
        return predictor_of(model, self.batch_size, tokens=True)


def pooled(level: Level, pool: str | None) -> str:
    """How vectors are made of tokens. Raises InputError for a way that the level does not have."""
    ways = POOLS[level]
    if pool is None:
        return ways[0]
    if pool not in ways:
        raise InputError(f"--pool of {level} is {' or '.join(ways)}, not {pool}")
    return pool
