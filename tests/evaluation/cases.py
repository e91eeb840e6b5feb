"""Recorded pairs of instance maps as cases, and made ones."""

import dataclasses
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from cellvit_jax import metrics
from cellvit_jax.evaluation.scores import Case
from tests.shared import DATA

NAMES = {1: "Epithelial", 2: "Inflammatory", 3: "Other", 4: "Unseen"}


def recorded(name, *, typed=True):
    maps = np.load(DATA / "metrics" / f"{name}.npz")
    pred = maps["pred_instances"]
    types = metrics.instance_types(pred, maps["pred_types"])
    return Case(
        name,
        maps["true_instances"],
        pred,
        maps["true_types"] if typed else None,
        dict(zip(np.unique(pred)[1:].tolist(), types.tolist(), strict=True)),
    )


def expected(name):
    scores = json.loads((DATA / "metrics" / f"{name}.json").read_text())
    return {key: math.nan if value is None else value for key, value in scores.items()}


def made(seed, tissue=None, side=48):
    """A case of squares of which the prediction moves, loses, mistypes and invents some."""
    rng = np.random.default_rng(seed)
    true, pred, types = (np.zeros((side, side), np.int32) for _ in range(3))
    pred_types = {}
    for i, (r, c) in enumerate(np.ndindex(side // 12, side // 12), start=1):
        kind, size = int(rng.integers(1, 4)), int(rng.integers(5, 9))
        there = np.s_[12 * r + 2 : 12 * r + 2 + size, 12 * c + 2 : 12 * c + 2 + size]
        dr, dc = rng.integers(0, 3, 2)
        found = np.s_[12 * r + dr : 12 * r + dr + size, 12 * c + dc : 12 * c + dc + size]
        if rng.random() < 0.7:
            true[there], types[there] = i, kind
        if rng.random() < 0.7:
            pred[found], pred_types[i] = i, kind if rng.random() < 0.8 else 1
    return Case(f"made{seed}", true, pred, types.astype(np.uint8), pred_types, tissue)


@dataclasses.dataclass(frozen=True)
class Late(Mapping):
    """Types that nobody gets before a file is there."""

    types: dict[int, int]
    gate: Path
    patience: float = 20.0  # seconds

    def __getitem__(self, key: int) -> int:
        return self.types[key]

    def __len__(self) -> int:
        return len(self.types)

    def __iter__(self) -> Iterator[int]:
        end = time.monotonic() + self.patience
        while not self.gate.exists():
            if time.monotonic() > end:
                raise TimeoutError(f"{self.gate.name} never came")
            time.sleep(0.001)
        return iter(self.types)
