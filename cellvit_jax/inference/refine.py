"""Outlines drawn again by a SAM, with the box of every cell as its prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np

from cellvit_jax.cells import Cells, stain
from cellvit_jax.cells.redraw import boxes, drawn, redrawn
from cellvit_jax.cells.watershed import filled
from cellvit_jax.errors import InputError
from cellvit_jax.inference.prompt import PromptPredictor
from cellvit_jax.inference.segment import Segmentation, Source
from cellvit_jax.slides import ImageSlide, open_image, plan

MARGIN = 8  # a window keeps an eighth of its side as context, as a tile does
GROWTH = 0.5  # a nucleus may reach beyond its box by this part of the box's sides
AGREEMENT = 0.3  # with less overlap (IoU) with the old outline it is another object

Box = tuple[int, int, int, int]  # r0, c0, r1, c1, end exclusive
Track = Callable[[list["Window"]], Iterable["Window"]]


@dataclasses.dataclass(frozen=True, eq=False)
class Window:
    """A part of the image, r0, c0, r1, c1, and the cells (rows of the table) to draw in it."""

    box: Box
    rows: np.ndarray


def refine(
    image: ImageSlide | Source,
    cells: Cells,
    predictor: PromptPredictor,
    *,
    window: int | None = None,
    track: Track = iter,
) -> Segmentation:
    """The `cells` of an image with outlines that the predictor's network draws.

    A cell keeps its id, type and probabilities; box, area, centroid and outline are measured anew.
    Where the network draws nothing, or something else than what was there, the cell keeps its old
    outline: the column `refined` (bool) says so. No cell is lost, and no two overlap. The network
    sees windows of `window` pixels, its own image size where nothing is given; smaller windows are
    enlarged for it, which gives finer outlines and takes longer. `track` wraps the list of windows,
    to show progress. Raises `InputError` for cells that are not of this image.
    """
    image = image if isinstance(image, ImageSlide) else open_image(image)
    side = predictor.config.image_size if window is None else window
    if side < 16:
        raise InputError(f"a window must have 16 pixels or more, not {side}")
    check_cells(cells, image)
    before = drawn(cells, image.size)
    labels, confidence = np.zeros_like(before), np.zeros(before.shape, np.float32)
    refined = np.zeros(len(cells), bool)
    extents = boxes(cells)
    for part in track(windows(cells, image.size, side)):
        for row, extent, logits in outlines(image, part, before, extents, predictor):
            paint(labels, confidence, row, extent, logits)
            refined[row], extents[row] = True, extent
    cells = settle(cells, labels, before, extents, refined)
    cells = stained_again(cells, labels, image.pixels)
    ids = np.concatenate([[0], cells.column("id")]).astype(np.uint32)
    return Segmentation(image, ids[labels], cells)


def check_cells(cells: Cells, image: ImageSlide) -> None:
    """Raises `InputError` for cells that reach beyond the image."""
    height, width = image.size
    rows, columns = boxes(cells)[:, 2:].max(axis=0, initial=0)
    if rows > height or columns > width:
        raise InputError(
            f"these cells are not of {image.name}: they reach to {columns} × {rows} pixels, the "
            f"image is {width} × {height} (width × height)"
        )


def windows(cells: Cells, size: tuple[int, int], side: int) -> list[Window]:
    """Windows of at most `side` pixels a side that show every cell whole, but for larger ones."""
    extents = boxes(cells)
    centres = (extents[:, :2] + extents[:, 2:]) / 2
    left = ((extents[:, 2:] - extents[:, :2]) <= side).all(1)
    found = []
    for tile in plan(size, side, side // MARGIN):
        box = clipped((tile.row, tile.col), side, size)
        core = (centres >= tile.core[0]) & (centres < tile.core[1])
        rows = np.flatnonzero(left & core.all(1) & _inside(extents, box))
        left[rows] = False
        found += [Window(box, rows)] if len(rows) else []
    for row in np.flatnonzero(left):  # too large for the margin
        origin = (int(n) - side // 2 for n in centres[row])
        found.append(Window(clipped(tuple(origin), side, size), np.array([row])))
    return found


def clipped(origin: tuple[int, ...], side: int, size: tuple[int, int]) -> Box:
    """The part of a square that the image has, moved inside first where the image is as long."""
    (r0, r1), (c0, c1) = (
        (max(0, min(o, n - side)), min(n, max(0, min(o, n - side)) + side))
        for o, n in zip(origin, size, strict=True)
    )
    return r0, c0, r1, c1


def _inside(extents: np.ndarray, box: Box) -> np.ndarray:
    r0, c0, r1, c1 = extents.T
    return (r0 >= box[0]) & (c0 >= box[1]) & (r1 <= box[2]) & (c1 <= box[3])


def outlines(
    image: ImageSlide,
    window: Window,
    before: np.ndarray,
    extents: np.ndarray,
    predictor: PromptPredictor,
) -> Iterator[tuple[int, Box, np.ndarray]]:
    """Row, place and logits of every cell of a window for which the network draws an outline."""
    r0, c0, r1, c1 = window.box
    predictor.set_image(image.read(r0, c0, r1 - r0, c1 - c0))
    inner = extents[window.rows] - (r0, c0, r0, c0)
    # a box's last corner is the last pixel's centre
    logits, _ = predictor.answer(boxes=(inner[:, [1, 0, 3, 2]] - (0, 0, 1, 1)).astype(float))
    for row, box, low in zip(window.rows, inner, logits[:, 0], strict=True):
        top, left, bottom, right = grown(box, (r1 - r0, c1 - c0))
        assert predictor.frame is not None, "an image was set"
        part = predictor.frame.enlarged(low, slice(top, bottom), slice(left, right))
        extent = (r0 + top, c0 + left, r0 + bottom, c0 + right)
        old = before[extent[0] : extent[2], extent[1] : extent[3]] == row + 1
        inside = nucleus(part > 0, old)
        if inside is not None:
            # of a hole that was filled nobody is sure
            yield row, extent, np.where(inside, np.maximum(part, 1e-6), 0)


def grown(box: np.ndarray, size: tuple[int, int]) -> Box:
    """A box with room around it, inside a window of `size`."""
    room = np.ceil((box[2:] - box[:2]) * GROWTH).astype(int)
    top, left = np.maximum(box[:2] - room, 0)
    bottom, right = np.minimum(box[2:] + room, size)
    return int(top), int(left), int(bottom), int(right)


def nucleus(mask: np.ndarray, old: np.ndarray) -> np.ndarray | None:
    """The piece of a mask that is most on the old one, holes filled; None if it is hardly there."""
    _, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    votes = np.bincount(parts[old & mask])
    if not len(votes):
        return None
    piece = filled(np.pad((parts == votes.argmax()).view(np.uint8), 1)) > 0
    return piece if (piece & old).sum() >= AGREEMENT * (piece | old).sum() else None


def paint(
    labels: np.ndarray, confidence: np.ndarray, row: int, extent: Box, logits: np.ndarray
) -> None:
    """Give a cell the pixels that no other is surer of."""
    part = slice(extent[0], extent[2]), slice(extent[1], extent[3])
    surer = logits > confidence[part]
    labels[part][surer] = row + 1
    confidence[part][surer] = logits[surer]


def settle(
    cells: Cells, labels: np.ndarray, before: np.ndarray, extents: np.ndarray, refined: np.ndarray
) -> Cells:
    """The cells with their outlines in `labels`, after what is not refined got its old one back.

    That can leave too little of a neighbour, which then gets its own back, and so on.
    """
    lost = ~refined
    while True:
        give_back(labels, before, lost)
        keep_largest_pieces(labels, extents, refined)
        found, there = redrawn(cells, labels, refined)
        lost = refined & ~(there & agree(labels, before, len(cells)))
        if not lost.any():
            return found.replace_columns(refined=refined)
        refined = refined & ~lost


def stained_again(cells: Cells, labels: np.ndarray, pixels: np.ndarray) -> Cells:
    """The cells with the haematoxylin in the new outlines of those that are refined."""
    columns = {
        name: np.where(cells.column("refined"), values, cells.column(name))
        for name, values in stain(pixels, labels, len(cells)).items()
        if name in cells.table.schema.names
    }
    return cells.replace_columns(**columns)


def give_back(labels: np.ndarray, before: np.ndarray, lost: np.ndarray) -> None:
    """Draw the old outlines of lost cells over everything else."""
    gone = np.concatenate([[False], lost])
    labels[gone[labels]] = 0
    old = gone[before]
    labels[old] = before[old]


def keep_largest_pieces(labels: np.ndarray, extents: np.ndarray, refined: np.ndarray) -> None:
    """Take the smaller pieces from the refined cells that neighbours have cut."""
    for row in np.flatnonzero(refined):
        r0, c0, r1, c1 = extents[row]
        part = labels[r0:r1, c0:c1]
        mask = (part == row + 1).view(np.uint8)
        count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        if count > 2:
            largest = 1 + stats[1:, cv2.CC_STAT_AREA].argmax()
            part[(pieces > 0) & (pieces != largest)] = 0


def agree(labels: np.ndarray, before: np.ndarray, count: int) -> np.ndarray:
    """Whether the new outline of each cell is still about where the old one was."""
    new, old, both = (
        np.bincount(ids.reshape(-1), minlength=count + 1)[1:]
        for ids in (labels, before, labels[labels == before])
    )
    return both >= AGREEMENT * (new + old - both)
