"""Which fields training tiles are taken from: CellViT's four strategies (Hörst et al. 2024)."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, get_args

import numpy as np

from cellvit_jax.data.dataset import Dataset, Sample
from cellvit_jax.errors import InputError

Strategy = Literal["random", "tissue", "cell", "tissue+cell"]


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Fields are drawn with replacement: all alike, or rare tissues and cell types more often.

    `gamma` from 0, no balance, to 1, full balance.
    """

    strategy: Strategy = "random"
    gamma: float = 0.85

    @classmethod
    def published(cls) -> Sampling:
        """CellViT's: by tissue and cell type, γ = 0.85."""
        return cls("tissue+cell", 0.85)

    def weights(self, dataset: Dataset) -> np.ndarray:
        """The fields' shares of the tiles, (N,) float64 of sum 1.

        All but "random" read every field once. Raises `InputError` where the data set has no
        tissues, or no cell types, to balance.
        """
        self._check(dataset)
        if self.strategy == "random":
            weights = np.ones(len(dataset.samples))
        else:
            tissues, present = _contents(dataset)
            weights = np.zeros(len(tissues))
            if "tissue" in self.strategy:
                weights += _scaled(tissue_weights(_known(tissues, dataset), self.gamma))
            if "cell" in self.strategy:
                weights += _scaled(cell_weights(_typed(present, dataset), self.gamma))
        return weights / weights.sum()

    def _check(self, dataset: Dataset) -> None:
        if self.strategy not in get_args(Strategy):
            raise InputError(
                f"unknown sampling {self.strategy}: expected random, tissue, cell or tissue+cell"
            )
        if not 0 <= self.gamma <= 1:
            raise InputError(f"gamma of the sampling is {self.gamma}, but must lie in 0..1")
        if not len(dataset.samples):
            raise InputError(f"{dataset.name} has no fields")


def tissue_weights(tissues: np.ndarray, gamma: float) -> np.ndarray:
    """N / (γ·n_t + (1−γ)·N) of each image, n_t being the images of its tissue: (N,) → (N,)."""
    _, index, counts = np.unique(tissues, return_inverse=True, return_counts=True)
    total = len(tissues)
    return (total / (gamma * counts + (1 - gamma) * total))[index]


def cell_weights(present: np.ndarray, gamma: float) -> np.ndarray:
    """Of each image by the classes in it, (N, C) bool → (N,): rare classes count more.

    (1−γ)·[any class] + γ·Σ_c [c present]·K / (γ·k_c + (1−γ)·K), k_c being the images that hold c
    and K their sum. Images without cells get the smallest weight of those with some.
    """
    images = present.sum(0)
    total = images.sum()
    if total == 0:
        return np.ones(len(present))
    # a class that no image holds has no part in any sum
    per_class = total / np.maximum(gamma * images + (1 - gamma) * total, 1e-12)
    weights = (1 - gamma) * present.any(1) + gamma * present @ per_class
    return np.where(weights > 0, weights, weights[weights > 0].min())


def _scaled(weights: np.ndarray) -> np.ndarray:
    return weights / weights.max()


def _contents(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Tissue (−1 = unknown) and presence of each class, of every field."""

    def look(sample: Sample) -> tuple[int, np.ndarray]:
        tissue = -1 if sample.tissue is None else sample.tissue
        return tissue, _present(sample, len(dataset.classes))

    # decoding lets go of Python's lock; indexing inside the threads keeps one field each in memory
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda index: look(dataset.samples[index]), range(len(dataset.samples)))
        tissues, present = zip(*found, strict=True)
    return np.array(tissues), np.array(present)


def _present(sample: Sample, classes: int) -> np.ndarray:
    if sample.types is None:
        return np.zeros(classes, bool)
    count = np.bincount(sample.types[sample.instances > 0], minlength=classes + 1)
    if len(count) > classes + 1:
        raise InputError(
            f"{sample.name} has cells of type {len(count) - 1}, the data set only {classes} classes"
        )
    return count[1:] > 0


def _known(tissues: np.ndarray, dataset: Dataset) -> np.ndarray:
    if (tissues < 0).all():
        raise InputError(f"{dataset.name} has no tissues to balance: sample by cell or at random")
    return tissues


def _typed(present: np.ndarray, dataset: Dataset) -> np.ndarray:
    if not present.any():
        raise InputError(
            f"{dataset.name} has no cell types to balance: sample by tissue, or at random"
        )
    return present
