"""`cellvit-jax embed`: vectors of cells or of patches, made and resumed as segmentations are."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cellvit_jax import caches, checkpoint
from cellvit_jax.card import ModelCard
from cellvit_jax.data.dataset import Sample
from cellvit_jax.data.open import is_annotated, open_dataset
from cellvit_jax.errors import InputError
from cellvit_jax.inference import pipeline, results
from cellvit_jax.inference.patches import PATCHES, PatchPredictor
from cellvit_jax.inference.plan import Plan, planned
from cellvit_jax.inference.predictor import Predictor
from cellvit_jax.inference.run import Task
from cellvit_jax.inference.segment import predictor_of
from cellvit_jax.inference.slide_job import Options
from cellvit_jax.slides import Slide, open_image
from cellvit_jax.slides.collection import Listed, find

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


@dataclasses.dataclass(frozen=True)
class Field(Listed):
    """A field of annotated data: `path` is that of the data, the pixels are in `samples`."""

    samples: Sequence[Sample] = ()
    index: int = 0

    @functools.cached_property
    def name(self) -> str:
        """The name that the data gives it."""
        return self.samples[self.index].name

    @property
    def pixels(self) -> np.ndarray:
        """(H,W,3) uint8, read at every access."""
        return np.ascontiguousarray(self.samples[self.index].image)

    def evidence(self, slide: Slide) -> dict[str, str | int]:
        """What it is called and looks like: the files hold other fields too."""
        pixels = slide.read(0, 0, *slide.size)
        return {"slide": self.name, "pixels": f"{zlib.crc32(pixels.data):08x}"}


@dataclasses.dataclass(unsafe_hash=True)
class EmbedTask(Task):
    """The embedding of every slide of a run, and of every field of a `split` of annotated data."""

    options: EmbedOptions = EmbedOptions()
    split: str | None = None

    def find(self, inputs: Sequence[Path], extensions: Sequence[str]) -> list[Listed]:
        """Slides, and the fields of folders that are annotated data. Raises InputError."""
        if not inputs:
            return super().find(inputs, extensions)
        found = [one for path in inputs for one in self._listed(path, extensions)]
        return list({(one.path.resolve(), one.name): one for one in found}.values())

    def _listed(self, path: Path, extensions: Sequence[str]) -> list[Listed]:
        if self.split:
            return fields(path, self.split)
        try:
            return find([path], extensions)
        except InputError:
            if not is_annotated(path):
                raise
        return fields(path)

    def open(self, source: Listed) -> Slide:
        """The slide, or the field under its own name. Raises InputError."""
        if not isinstance(source, Field):
            return super().open(source)
        image = open_image(source.pixels, mpp=self.mpp_of(source))
        return dataclasses.replace(image, name=source.name)

    @functools.cached_property
    def predictor(self) -> Predictor:
        """The network, loaded on first use. Raises CheckpointError, InputError."""
        caches.keep_compiled_programs()
        model = checkpoint.load(self.model)
        if self.options.level == "patches":
            pool, tile = self.options.pool, self.options.tile
            return PatchPredictor(model, pool, tile, self.batch_size)
        return predictor_of(model, self.batch_size, tokens=True)


def fields(path: Path, split: str | None = None) -> list[Listed]:
    """The fields of annotated data in any layout. Raises InputError."""
    part = open_dataset(path, split)
    return [Field(path, part.mpp, part.samples, index) for index in range(len(part.samples))]


def pooled(level: Level, pool: str | None) -> str:
    """How vectors are made of tokens. Raises InputError for a way that the level does not have."""
    ways = POOLS[level]
    if pool is None:
        return ways[0]
    if pool not in ways:
        raise InputError(f"--pool of {level} is {' or '.join(ways)}, not {pool}")
    return pool
