"""What is classified: bags of patch vectors with a label, of a slide or of one patch each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cellvit_jax.errors import InputError

FILE = "embeddings.parquet"


@dataclasses.dataclass(frozen=True, eq=False)
class Patches:
    """The N patches of a slide: `ids` (N,), `centres` (N,2) x, y and `sides` (N,) in level-0
    pixels, `vectors` (N,D) float16; how many were `dropped` since their vectors are no numbers."""

    ids: np.ndarray
    centres: np.ndarray
    sides: np.ndarray
    vectors: np.ndarray
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.ids)


@dataclasses.dataclass(frozen=True, eq=False)
class Bags:
    """B bags of N patches in all, none of them empty.

    `vectors` (N,D) float16 in the order of the bags, `starts` (B+1,) the row at which each begins,
    `labels` (B,) 0-based classes, `groups` (B,) numbers of the patients, `names` (B,).
    """

    vectors: np.ndarray
    starts: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    names: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def sizes(self) -> np.ndarray:
        """Patches of each bag (B,)."""
        return np.diff(self.starts)

    @property
    def owners(self) -> np.ndarray:
        """The bag of each patch (N,)."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def take(self, chosen: np.ndarray) -> Bags:
        """Some of the bags, by number, in that order."""
        sizes = self.sizes[chosen]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        rows = np.arange(starts[-1]) + np.repeat(self.starts[chosen] - starts[:-1], sizes)
        parts = (self.labels[chosen], self.groups[chosen], self.names[chosen])
        return Bags(self.vectors[rows], starts, *parts)

    def pooled(self, rows: np.ndarray) -> np.ndarray:
        """The mean over each bag (B, ...) of what there is of each patch (N, ...)."""
        sizes = self.sizes.reshape(-1, *[1] * (rows.ndim - 1))
        return np.add.reduceat(rows, self.starts[:-1], axis=0) / sizes


def joined(one: Bags, other: Bags) -> Bags:
    """The bags of both."""
    starts = np.concatenate([one.starts, one.starts[-1] + other.starts[1:]])
    names = ("vectors", "labels", "groups", "names")
    both = {name: np.concatenate([getattr(bags, name) for bags in (one, other)]) for name in names}
    return Bags(starts=starts, **both)


def find(folder: Path) -> dict[str, Path]:
    """The files of embeddings in the results of `embed`, or in one slide's, by the slide's name.

    Raises InputError where there are none.
    """
    if (folder / FILE).is_file():
        return {folder.resolve().name: folder / FILE}
    found = {path.parent.name: path for path in sorted(folder.glob(f"*/{FILE}"))}
    if not found:
        raise InputError(
            f"{folder} holds no {FILE}, nor does a folder in it: make them by "
            "`cellvit-jax embed SLIDES --level patches --out DIR`"
        )
    return found


def read(path: Path) -> Patches:
    """The patches of a slide. Raises InputError for what is no file of them."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if missing := {"id", "x", "y", "side", "embedding"} - set(table.column_names):
        raise InputError(
            f"{path} holds no patches (it has no {', '.join(sorted(missing))}): "
            "embed with --level patches"
        )
    column = table["embedding"].combine_chunks()
    vectors = column.flatten().to_numpy().reshape(len(column), column.type.list_size)
    usable = np.isfinite(vectors).all(1)
    centres = np.stack([table[axis].to_numpy() for axis in "xy"], 1)
    ids, sides, dropped = table["id"].to_numpy(), table["side"].to_numpy(), int((~usable).sum())
    return Patches(ids[usable], centres[usable], sides[usable], vectors[usable], dropped)


def read_all(
    files: dict[str, Path], watched: Callable[[Iterator], Iterator] = iter
) -> Iterator[tuple[str, Patches]]:
    """The patches of all slides, one by one. Raises InputError where lengths of vectors differ."""
    first = None
    for name, path in watched(iter(files.items())):
        patches = read(path)
        width = patches.vectors.shape[1] if len(patches) else None
        if first and width and width != first[1]:
            raise InputError(
                f"vectors of {name} have {width} numbers, those of {first[0]} {first[1]}: "
                "embed all slides with one model"
            )
        first = first or (width and (name, width))
        yield name, patches
