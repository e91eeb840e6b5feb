"""The annotated fields of a run: those it learns from, and those it is measured on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cellvit_jax.data.dataset import Dataset, Sample
from cellvit_jax.data.lazy import Lazy
from cellvit_jax.data.open import TRAINING, VALIDATION, open_splits
from cellvit_jax.errors import InputError
from cellvit_jax.training.config import RunConfig, Source, Validation

IN_MEMORY = 2**30  # bytes of fields that are read once rather than for each tile
BYTES = 8  # of a pixel: RGB, instance, type


class Fields(NamedTuple):
    """What a run learns from, `weights` being the fields' shares of the tiles, and its measure.

    `measured` is None where there is nothing to measure on; `news` are sentences for people.
    """

    learnt: Dataset
    weights: np.ndarray
    measured: Dataset | None
    news: tuple[str, ...]


def open_fields(config: RunConfig) -> Fields:
    """The fields that a config names. Raises `InputError` where they do not fit together."""
    if not config.data:
        raise InputError("say what to train on: --data FOLDER")
    parts = [training_part(source, index) for index, source in enumerate(config.data)]
    for part in parts:
        _check(part, parts[0])
    measured, how = measured_part(config.validation, config.data[0])
    if measured is None and (measured := held_out(parts[0], config.validation.held_out)):
        kept = set(measured.samples.items)  # type: ignore[attr-defined]
        parts[0] = _subset(parts[0], [i for i in range(len(parts[0].samples)) if i not in kept])
        how = f"{_count(measured)} held out"
    shares = [
        source.share * config.recipe.sampling.weights(part)
        for source, part in zip(config.data, parts, strict=True)
    ]
    learnt = dataclasses.replace(parts[0], samples=joined(parts))
    if measured is not None:
        _check(measured, learnt)
        measured = at_most(measured, config.validation.fields)
    news = f"data         {_count(learnt)} to learn from; to measure on: {how}"
    return Fields(learnt, np.concatenate(shares), measured, (news,))


def held_out(part: Dataset, share: float) -> Dataset | None:
    """Every n-th field, `share` of all, at least one; None where there is but one, or no share."""
    count = len(part.samples)
    if count < 2 or share <= 0:
        return None
    kept = np.unique(np.linspace(0, count - 1, max(1, round(min(share, 0.5) * count))).astype(int))
    return _subset(part, kept.tolist())


def training_part(source: Source, index: int) -> Dataset:
    splits = open_splits(source.path, source.layout)
    if source.split:
        return _named(splits, source.path, source.split)
    if len(splits) == 1:
        return next(iter(splits.values()))
    for name in TRAINING:
        if name in splits:
            return splits[name]
    raise InputError(
        f"{source.path} has the splits {', '.join(splits)}: choose one to train on with "
        f"--set data.{index}.split=NAME"
    )


def measured_part(validation: Validation, first: Source) -> tuple[Dataset | None, str]:
    path = validation.path or first.path
    splits = open_splits(path, "" if validation.path else first.layout)
    if validation.split:
        part = _named(splits, path, validation.split)
    elif validation.path and len(splits) == 1:
        part = next(iter(splits.values()))
    else:
        found = [splits[name] for name in VALIDATION if name in splits]
        if not found:
            lone = validation.held_out > 0  # otherwise somebody wants it so
            return None, "nothing" + ", for there is but one field" * lone
        part = found[0]
    return part, f"{_count(part)} of {Path(path).name}"


def _named(splits: dict[str, Dataset], path: str, name: str) -> Dataset:
    if name.lower() not in splits:
        raise InputError(f"{path} has no split {name!r}: give one of {', '.join(splits)}")
    return splits[name.lower()]


def _check(part: Dataset, first: Dataset) -> None:
    if not part.outlined:
        raise InputError(f"the nuclei of {part.name} are points: training needs outlines")
    for what in ("classes", "tissues"):
        names, wanted = getattr(part, what), getattr(first, what)
        if names and names != wanted:
            raise InputError(
                f"{part.name} has the {what} {', '.join(names)}, {first.name} has "
                f"{', '.join(wanted) or 'none'}: they must be the same, or missing"
            )
    if abs(part.mpp / first.mpp - 1) > 0.05:
        raise InputError(
            f"{part.name} has {part.mpp:g} µm per pixel, {first.name} {first.mpp:g}: resample one"
        )


def _subset(part: Dataset, kept: list[int]) -> Dataset:
    return dataclasses.replace(part, samples=Lazy(part.samples.__getitem__, tuple(kept)))


def at_most(part: Dataset, fields: int) -> Dataset:
    if not fields or fields >= len(part.samples):
        return part
    return _subset(part, np.linspace(0, len(part.samples) - 1, fields).astype(int).tolist())


def joined(parts: Sequence[Dataset]) -> Lazy:
    places = tuple((i, j) for i, part in enumerate(parts) for j in range(len(part.samples)))
    return Lazy(partial(_field, tuple(at_hand(part.samples) for part in parts)), places)


def _field(parts: tuple[Sequence[Sample], ...], place: tuple[int, int]) -> Sample:
    return parts[place[0]][place[1]]


def at_hand(samples: Sequence[Sample]) -> Sequence[Sample]:
    """The fields in memory where they take little of it: tiles are many to a field."""
    if samples[0].instances.size * BYTES * len(samples) > IN_MEMORY:
        return samples
    return tuple(samples)


def _count(part: Dataset) -> str:
    count = len(part.samples)
    return f"{count:,} field{'s' * (count != 1)}"
