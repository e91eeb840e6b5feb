"""Recorded network maps, and what the reference procedure makes of them."""

from __future__ import annotations

import dataclasses
import json
from functools import cache

import numpy as np

from tests.shared import DATA, shared

SMALL = (
    "crowded-512",
    "edges-256",
    "empty-256",
    "lattice-128",
    "noisy-512",
    "nucls-256-0",
    "nucls-256-3",
    "type-ties-256",
)
LARGE = ("crowded-1024", "nucls-1024")  # read from beside the checkout


@dataclasses.dataclass(frozen=True)
class Record:
    binary: np.ndarray
    hv: np.ndarray
    types: np.ndarray
    instances: np.ndarray
    cells: list[dict]

    @property
    def maps(self):
        return self.binary, self.hv, self.types


@cache
def record(name: str) -> Record:
    folder = DATA / "postprocessing" if name in SMALL else shared("reference/postprocessing")
    with np.load(folder / f"{name}.npz") as stored:
        arrays = {key: stored[key] for key in stored.files}
    hv = np.stack([arrays["hv_x"], arrays["hv_y"]], -1).astype(np.float32)
    cells = json.loads((folder / f"{name}.cells.json").read_bytes())
    return Record(arrays["binary"], hv, arrays["type"], arrays["expected_instances"], cells)


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal up to renumbering, background included."""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    one_to_one = all(len(np.unique(side)) == pairs.shape[1] for side in pairs)
    return one_to_one and np.array_equal(pairs[0] == 0, pairs[1] == 0)


def boxes(cells) -> np.ndarray:
    return np.stack([cells.column(f"bbox_{side}") for side in ("r0", "c0", "r1", "c1")], 1)
