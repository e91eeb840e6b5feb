"""Which detected cell is which annotated one, and what of both a head learns from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from cellvit_jax.data.dataset import Dataset, Sample
from cellvit_jax.data.lazy import Watch, unwatched, watched
from cellvit_jax.errors import InputError
from cellvit_jax.heads.detect import Detected, Detector
from cellvit_jax.metrics import instance_types, match_points

RADIUS = 3.0  # µm: 12 px at 40×, as CellViT++ has it
IOU = 0.5  # above it a cell has but one partner
PER_CELL = ("tokens", "labels", "fields", "own")


@dataclasses.dataclass(frozen=True, eq=False)
class Labelled:
    """N annotated cells that were found: `tokens` (N,D) float32, `labels` (N,) 0-based classes,
    `fields` (N,) numbers of the fields they are in, `own` (N,) ids that the network gave them.

    `annotated` (K,) counts all of each class, found or not.
    """

    tokens: np.ndarray
    labels: np.ndarray
    fields: np.ndarray
    own: np.ndarray
    annotated: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def counts(self) -> np.ndarray:
        """How many of each class were found (K,)."""
        return np.bincount(self.labels, minlength=len(self.annotated))

    def take(self, chosen: np.ndarray) -> Labelled:
        """Some of the cells; they are all that was annotated then."""
        arrays = {name: getattr(self, name)[chosen] for name in PER_CELL}
        part = dataclasses.replace(self, **arrays)
        return dataclasses.replace(part, annotated=part.counts)


def gather(dataset: Dataset, split: str, detector: Detector, watch: Watch = unwatched) -> Labelled:
    """The annotated cells of all fields that the network finds, with their tokens.

    Cells of no class are left aside, and so are tokens with numbers that are none. Raises
    InputError where nobody annotated types.
    """
    parts = []
    for number, sample in enumerate(watched(dataset, split, watch)):
        found = detector(sample.name, sample.image, dataset.mpp)
        kinds, places = matched(sample, found, RADIUS / dataset.mpp)
        counts = np.bincount(kinds, minlength=1 + len(dataset.classes))[1:]
        used = (places >= 0) & (kinds > 0)
        kinds, places = kinds[used], places[used]
        finite = np.isfinite(found.tokens[places]).all(1)
        kinds, places = kinds[finite], places[finite]
        fields = np.full(len(kinds), number)
        parts.append(Labelled(found.tokens[places], kinds - 1, fields, found.types[places], counts))
    return joined(parts)


def joined(parts: Sequence[Labelled]) -> Labelled:
    """The cells of several fields."""
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in PER_CELL}
    return Labelled(**arrays, annotated=np.sum([part.annotated for part in parts], 0))


def matched(sample: Sample, found: Detected, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Of each annotated cell its class id, 0 for none, and the row of `found` it is, -1 for none.

    Points take the nearest centroids within `radius` pixels, one each; outlined nuclei what they
    share more than half of their union with. Raises InputError where nobody annotated types.
    """
    if sample.points is not None:
        kinds = sample.points[:, 2].astype(np.int64)
        annotated, detected = match_points(sample.points[:, :2], found.centroids, radius)
    elif sample.types is not None:
        kinds = instance_types(sample.instances, sample.types)
        annotated, detected = match_masks(sample.instances, found.instances)
    else:
        raise InputError(f"{sample.name} has no types of cells: a head has nothing to learn from")
    places = np.full(len(kinds), -1)
    places[annotated] = detected
    return kinds, places


def match_masks(true: np.ndarray, pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the ids of two maps (H,W) whose pixels share more than half of their union."""
    (true_ids, true_areas), (pred_ids, pred_areas) = (
        np.unique(inst[inst > 0], return_counts=True) for inst in (true, pred)
    )
    both = (true > 0) & (pred > 0)
    stride = int(pred.max(initial=0)) + 1
    codes, shared = np.unique(true[both].astype(np.int64) * stride + pred[both], return_counts=True)
    t = np.searchsorted(true_ids, codes // stride)
    p = np.searchsorted(pred_ids, codes % stride)
    same = shared > IOU * (true_areas[t] + pred_areas[p] - shared)
    return t[same], p[same]
