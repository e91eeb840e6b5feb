"""A page of pictures of annotated data, for people."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
from scipy import ndimage

from cellvit_jax.card import COLORS
from cellvit_jax.data.census import nuclei
from cellvit_jax.data.dataset import Sample
from cellvit_jax.data.inspection import UNTYPED, Summary, type_counts
from cellvit_jax.exports import contact_sheet, legend

PANELS = 12
WINDOW = 64.0  # µm of a field that a picture shows, from its middle
WHOLE = 1.25  # a field up to so many times as large is shown whole
NUCLEI = "nuclei"


def write(summary: Summary, path: Path) -> None:
    """A page of fields with their nuclei outlined in the colours of their classes, and a legend.

    Fields are spread evenly over each split; of large ones the middle is shown, or where there are
    few fields, several parts. Raises OutputError.
    """
    counts = _shares([len(part.samples) for part in summary.splits.values()])
    parts = PANELS // sum(counts)
    panels = []
    for (split, part), count in zip(summary.splits.items(), counts, strict=True):
        for i in np.linspace(0, len(part.samples) - 1, count).round().astype(int).tolist():
            caption = f"{'' if split == 'all' else f'{split} · '}{part.samples[i].name}"
            panels += [_panel(caption, one) for one in _views(part.samples[i], part.mpp, parts)]
    contact_sheet.write(panels, _legend(summary), path)


def _shares(sizes: list[int]) -> list[int]:
    """How many pictures each split gets: one at least, and what small ones leave to the others."""
    shares = [0] * len(sizes)
    left = PANELS
    for waiting, i in zip(range(len(sizes), 0, -1), np.argsort(sizes, kind="stable"), strict=True):
        shares[i] = max(1, min(sizes[i], left // waiting))
        left -= shares[i]
    return shares


def _legend(summary: Summary) -> list[legend.Entry]:
    counts = type_counts([field for fields in summary.counted.values() for field in fields])
    classes = next(iter(summary.splits.values())).classes
    names = dict(enumerate(classes, 1)) | ({0: UNTYPED if classes else NUCLEI} if counts[0] else {})
    return [legend.Entry(name, _colour(i), counts[i]) for i, name in names.items()]


def _colour(kind: int) -> tuple[int, int, int]:
    return COLORS[kind % len(COLORS)]


def _views(sample: Sample, mpp: float, most: int) -> list[Sample]:
    """The field, or parts of one that is too large to see nuclei in: its middle if only one."""
    side = round(WINDOW / mpp)
    height, width = sample.instances.shape
    if max(height, width) <= WHOLE * side:
        return [sample]
    grid = max(1, height // side), max(1, width // side)
    count = min(most, grid[0] * grid[1])
    if count == 1:
        return [_cut(sample, max(0, (height - side) // 2), max(0, (width - side) // 2), side)]
    places = np.linspace(0, grid[0] * grid[1] - 1, count).round().astype(int).tolist()
    corners = [
        [
            i * max(0, n - side) // max(1, cells - 1)
            for i, n, cells in zip(at, (height, width), grid, strict=True)
        ]
        for at in (divmod(place, grid[1]) for place in places)
    ]
    return [_cut(sample, top, left, side) for top, left in corners]


def _cut(sample: Sample, top: int, left: int, side: int) -> Sample:
    area = slice(top, top + side), slice(left, left + side)
    points = sample.points
    if points is not None:
        moved = points - (left, top, 0)
        points = moved[((moved[:, :2] >= 0) & (moved[:, :2] < side)).all(1)]
    types = None if sample.types is None else sample.types[area]
    image, instances = sample.image[area], sample.instances[area]
    return dataclasses.replace(sample, image=image, instances=instances, types=types, points=points)


def _panel(caption: str, sample: Sample) -> contact_sheet.Panel:
    _, types = nuclei(sample)
    caption += f" · {len(types):,} {'nucleus' if len(types) == 1 else 'nuclei'}"
    colours = [_colour(kind) for kind in types.tolist()]
    if sample.points is not None:
        points = list(sample.points[:, :2])
        return contact_sheet.Panel(caption, sample.image, points=points, point_colours=colours)
    outlines = _outlines(sample.instances)
    pieces = [
        (one, colour) for several, colour in zip(outlines, colours, strict=True) for one in several
    ]
    return contact_sheet.Panel(caption, sample.image, *zip(*pieces, strict=True))


def _outlines(instances: np.ndarray) -> list[list[np.ndarray]]:
    """The outlines of every nucleus, in order of ids: several where it is in pieces."""
    found = []
    for i, box in enumerate(ndimage.find_objects(instances), 1):
        if box is None:
            continue
        mask = (instances[box] == i).astype(np.uint8)
        offset = (box[1].start, box[0].start)
        contours, _ = cv2.findContours(
            mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=offset
        )
        found.append([contour[:, 0] for contour in contours])
    return found
