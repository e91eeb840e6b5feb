"""A band of an image, and what is left of those above it: which clumps are whole, and their cells.

Clumps inside a piece are solved together, those that cross from piece to piece together with others
along the same seam. A clump wider or higher than `REACH` is solved in squares of that side, each
seen with `HALO` pixels around it; a cell belongs to the square that holds its centroid.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from cellvit_jax.cells import clumps
from cellvit_jax.cells.measure import first_columns, measure, pixel_runs
from cellvit_jax.cells.pieces import Box, Piece, Tokens, planes_of
from cellvit_jax.cells.shape import shapes
from cellvit_jax.cells.staining import stained
from cellvit_jax.cells.watershed import instances

REACH = 2048
HALO = 128
TOGETHER = 512  # clumps with no side longer than this are solved with others along their seam
OPEN, CONTEXT = 1, 2

Map = Callable[[Callable[..., Any], Iterable[Any]], Iterable[Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A window of the image, and which of its pixels are nuclei that are to be told apart.

    Of the cells those count that have their centroid in `owned`, a box; all if that is None.
    """

    box: Box
    binary: np.ndarray
    owned: Box | None = None


class Canvas:
    """The nucleus pixels of `pieces` in rows up to `bottom` of an image of that `width`.

    `cuts` are the rows, beside the pieces' columns, where one piece ends and another begins. Cells
    with a centroid above `line` and context pixels are not looked for.
    """

    def __init__(
        self,
        pieces: Sequence[Piece],
        cuts: Iterable[int],
        bottom: int,
        width: int,
        line: int = 0,
        tokens: Tokens | None = None,
    ):
        self.pieces, self.line, self.tokens = pieces, line, tokens
        self.boxes = np.array([piece.box for piece in pieces], np.int64).reshape(-1, 4)
        # a blank row above, as in the image, where edges are smoothed across
        self.top = max(int(self.boxes[:, 0].min(initial=bottom)) - 1, 0)
        self.todo = np.zeros((bottom - self.top, width), np.uint8)
        self.context = np.zeros((max(line - self.top, 0), width), bool)
        for piece in pieces:
            window = self._under(piece, self.todo)
            np.maximum(window, piece.mask, out=window)
            if piece.context:
                window = self._under(piece, self.context)
                np.logical_or(window, piece.mask[: len(window)], out=window)
        self.rows = np.unique([cut - self.top for cut in cuts if self.top < cut < bottom])
        self.cols = np.unique(self.boxes[:, 1])
        self.finished: list[Job] = []

    def hold(self) -> tuple[tuple[Piece, ...], int]:
        """Set aside what is open at the lower edge: its pieces, and the line above which it is not.

        Of clumps that are open and higher than `REACH` the squares that are complete are finished;
        what of them is set aside begins `HALO` pixels above the line.
        """
        seeds, mask, first = clumps.hanging(self.todo)
        held = np.zeros_like(self.todo)
        held[first:] = mask
        self.todo[first:][mask > 0] = 0
        bottom = self.top + len(self.todo)
        giants = [seed for seed in seeds if seed[4] - seed[2] > REACH + HALO]
        line = (bottom - HALO) // REACH * REACH if giants else self.line
        for r, c, r0, c0, r1, c1 in sorted(giants, key=clumps.area, reverse=True):
            self._finish(held, (r, c), (r0, c0, r1, c1), line)
        return tuple(self._kept(held)), line

    def _finish(self, held: np.ndarray, at: tuple[int, int], box: Box, line: int) -> None:
        """The jobs of an open giant above `line`; what of it is not needed below is let go."""
        if held[at] != OPEN:
            return
        pixels = clumps.clump(held, box, at)
        absolute = self._absolute(box)
        self.finished += squares(absolute, pixels, (self._floor(box, pixels), line))
        window = held[box[0] : box[2], box[1] : box[3]]
        above = np.arange(absolute[0], absolute[2])[:, None] < line
        window[(pixels > 0) & above] = CONTEXT
        window[: max(line - HALO - absolute[0], 0)][
            pixels[: max(line - HALO - absolute[0], 0)] > 0
        ] = 0

    def _kept(self, held: np.ndarray) -> Iterator[Piece]:
        for piece in self.pieces:
            window = self._under(piece, held)
            for part, context in ((OPEN, piece.context), (CONTEXT, True)):
                if kept := piece.keep(window == part, context=context):
                    yield kept

    def solve(self, runs: bool, run: Map, masked: bool = False) -> Iterable[pa.Table]:
        """The cells of all that has not been set aside, a table a job; the first may be empty."""
        return run(lambda job: self._solve(job, runs, masked), self._jobs())

    def _jobs(self) -> Iterator[Job]:
        yield Job((0, 0, 1, 1), np.zeros((1, 1), np.uint8))  # a table without rows has columns too
        yield from self.finished
        yield from self._crossing()
        for piece in self.pieces:
            window = self._under(piece, self.todo)
            if not piece.context and window.any():
                yield self._widened(piece.box, window)

    def _widened(self, box: Box, window: np.ndarray) -> Job:
        r0, c0, r1, c1 = box
        top, left, end, right = clumps.widened(box, (self.top + len(self.todo), self.todo.shape[1]))
        frame = (r0 - top, end - r1), (c0 - left, right - c1)
        return Job((top, left, end, right), np.pad(window, frame))

    def _crossing(self) -> Iterator[Job]:
        seams: dict[tuple[str, int, int], list[tuple[Box, np.ndarray]]] = {}
        for box, pixels in clumps.crossing(self.todo, self.rows, self.cols):
            floor = self._floor(box, pixels)
            if max(pixels.shape) > REACH:
                yield from squares(self._absolute(box), pixels, (floor, None))
            elif max(pixels.shape) > TOGETHER or floor:
                owned = (floor, 0, len(self.todo) + self.top, self.todo.shape[1]) if floor else None
                yield Job(self._absolute(box), pixels, owned)
            else:
                seams.setdefault(self._seam(box), []).append((box, pixels))
        yield from (self._together(parts) for parts in seams.values())

    def _floor(self, box: Box, pixels: np.ndarray) -> int:
        """The row from which on a clump's cells count: the line if it has context, else 0."""
        context = self.context[box[0] : box[2], box[1] : box[3]]
        return self.line if (context & (pixels[: len(context)] > 0)).any() else 0

    def _seam(self, box: Box) -> tuple[str, int, int]:
        """Which side of which piece a clump crosses."""
        i = np.searchsorted(self.rows, box[0] + 1, side="right")
        j, beside = np.searchsorted(self.cols, (box[1] + 1, box[3] - 2), side="right")
        return ("column" if j != beside else "row"), int(i), int(j)

    def _together(self, parts: list[tuple[Box, np.ndarray]]) -> Job:
        corners = np.array([box for box, _ in parts])
        r0, c0 = corners[:, :2].min(0).tolist()
        r1, c1 = corners[:, 2:].max(0).tolist()
        binary = np.zeros((r1 - r0, c1 - c0), np.uint8)
        for box, pixels in parts:
            binary[box[0] - r0 : box[2] - r0, box[1] - c0 : box[3] - c0] |= pixels
        return Job(self._absolute((r0, c0, r1, c1)), binary)

    def _solve(self, job: Job, runs: bool, masked: bool) -> pa.Table:
        planes = planes_of(self.pieces, self.boxes, job.box, self.tokens)
        inst = instances(job.binary, planes.edge)
        table, counted = measure(inst, planes, job.box[:2], masked=masked)
        measured = shapes(inst, table.num_rows)
        if planes.haematoxylin is not None:
            inside = inst > 0
            measured |= stained(planes.haematoxylin[inside], inst[inside], table.num_rows)
        for name, values in measured.items():
            table = table.append_column(name, pa.array(values))
        table = table.append_column("first_col", first_columns(inst, table.num_rows, job.box[1]))
        if runs:
            table = table.append_column("runs", pixel_runs(inst, table.num_rows, job.box[:2]))
        if job.owned:
            r0, c0, r1, c1 = job.owned
            x, y = (np.floor(table[f"centroid_{axis}"].to_numpy() + 0.5) for axis in "xy")
            counted = counted & (y >= r0) & (y < r1) & (x >= c0) & (x < c1)
        return table.filter(counted)

    def _absolute(self, box: Box) -> Box:
        return box[0] + self.top, box[1], box[2] + self.top, box[3]

    def _under(self, piece: Piece, plane: np.ndarray) -> np.ndarray:
        """The part of a plane of the canvas that a piece covers."""
        r0, c0, r1, c1 = piece.box
        return plane[r0 - self.top : r1 - self.top, c0:c1]


def squares(box: Box, pixels: np.ndarray, rows: tuple[int, int | None]) -> Iterator[Job]:
    """The jobs of a giant clump, a square of the image's grid each; cells count in `rows`."""
    (r0, c0, r1, c1), (floor, line) = box, rows
    first, end = max(r0, floor), r1 if line is None else line
    for r, c in itertools.product(_grid(first, end), _grid(c0, c1)):
        owned = max(r, floor), c, min(r + REACH, end), c + REACH
        top, left = max(owned[0] - HALO, r0), max(c - HALO, c0)
        bottom, right = min(owned[2] + HALO, r1), min(c + REACH + HALO, c1)
        window = pixels[top - r0 : bottom - r0, left - c0 : right - c0]
        if window.any():
            yield Job((top, left, bottom, right), np.ascontiguousarray(window), owned)


def _grid(start: int, end: int) -> range:
    return range(start // REACH * REACH, end, REACH)
