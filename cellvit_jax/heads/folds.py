"""Which cells a head learns from, and which tell when to stop."""

from __future__ import annotations

import dataclasses

import numpy as np

from cellvit_jax.data.open import VALIDATION
from cellvit_jax.heads.pairs import Labelled

TEST = "test"
SHARE, FEWEST = 0.2, 5  # of the cells, where no split is given; fields that can be held out whole
DRAWS = 64


def pairs_of(names: list[str]) -> list[tuple[str, str]]:
    """Pairs of a training and a validation split: those of `fold_K_train` and `fold_K_val` where
    there are any, else `train` and what stands for validation, else none."""
    folds = [(n, n.removesuffix("_train") + "_val") for n in names if n.endswith("_train")]
    if folds := [pair for pair in folds if pair[1] in names]:
        return folds
    return [("train", name) for name in VALIDATION if name in names and "train" in names][:1]


def held_out(cells: Labelled, seed: int) -> tuple[Labelled, Labelled]:
    """The cells in two parts, a fifth of them in the second.

    Whole fields where there are five or more: of some draws the one that divides the classes best.
    Else cells of each class; one that is the only of its class stays in the first part. Annotated
    cells that were not found count there, too.
    """
    rng = np.random.default_rng(seed)
    fields = np.unique(cells.fields)
    if len(fields) < FEWEST:
        chosen = _stratified(cells.labels, rng)
    else:
        size = max(1, round(SHARE * len(fields)))
        draws = (np.isin(cells.fields, rng.permutation(fields)[:size]) for _ in range(DRAWS))
        chosen = min(draws, key=lambda part: _imbalance(cells, part))
    rest, held = cells.take(~chosen), cells.take(chosen)
    return dataclasses.replace(rest, annotated=cells.annotated - held.annotated), held


def _stratified(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        places = rng.permutation(np.flatnonzero(labels == label))
        chosen[places[: round(SHARE * len(places))]] = True
    return chosen


def _imbalance(cells: Labelled, part: np.ndarray) -> float:
    """How far the classes in a part are from their share, relative to their sizes."""
    classes = len(cells.annotated)
    there = np.bincount(cells.labels[part], minlength=classes)
    return float(np.abs(there / np.maximum(cells.counts, 1) - SHARE)[cells.counts > 0].sum())
