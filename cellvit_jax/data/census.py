"""What a field holds, counted: nuclei, their areas and types."""

from __future__ import annotations

import dataclasses
import hashlib

import cv2
import numpy as np

from cellvit_jax.data.dataset import Sample


@dataclasses.dataclass(frozen=True, eq=False)
class Census:
    """The nuclei of a field.

    `types` (N,) are class ids, 0 where a nucleus has none; `areas` (N,) pixels, none for points.
    `typed` says whether types were annotated at all, `pieces` in how many connected pieces the
    foreground is, `digest` is that of the pixels.
    """

    name: str
    size: tuple[int, int]
    types: np.ndarray
    areas: np.ndarray
    typed: bool
    tissue: int | None
    pieces: int
    digest: bytes

    def __len__(self) -> int:
        return len(self.types)


def census(sample: Sample) -> Census:
    """Counts the nuclei of a field; the type of an outlined one is that of most of its pixels."""
    areas, types = nuclei(sample)
    pieces, _ = cv2.connectedComponents((sample.instances > 0).astype(np.uint8))
    digest = hashlib.blake2b(np.ascontiguousarray(sample.image).data, digest_size=16)
    digest.update(repr(sample.image.shape).encode())
    return Census(
        sample.name,
        sample.instances.shape,
        types,
        areas,
        sample.types is not None or sample.points is not None,
        sample.tissue,
        pieces - 1,
        digest.digest(),
    )


def nuclei(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Areas (N,) and types (N,) of the nuclei, in order of their ids; of points the types alone.

    Background is a nucleus' type only if it has no pixel of another; of equals the lower id wins.
    """
    if sample.points is not None:
        return np.zeros(0, np.int64), sample.points[:, 2].astype(np.int64)
    inside = sample.instances > 0
    _, labels = np.unique(sample.instances[inside], return_inverse=True)
    count = int(labels.max(initial=-1)) + 1
    areas = np.bincount(labels, minlength=count)
    if sample.types is None:
        return areas, np.zeros(count, np.int64)
    kinds = int(sample.types.max(initial=0)) + 1
    votes = np.bincount(labels * kinds + sample.types[inside], minlength=count * kinds)
    votes = votes.reshape(count, kinds)
    votes[:, 0] = 0
    return areas, votes.argmax(1)
