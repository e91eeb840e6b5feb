"""A slide from pixels to cells: read → predict → extract → stitch, all at the same time.

Every stage is a generator over the one before it; between them are bounded queues, so that a slow
stage holds up those before it, and memory is bounded by the work in flight.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, closing
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from cellvit_jax.cells import Band, Piece, Planes, Remains, Tokens, advance
from cellvit_jax.cells.staining import haematoxylin
from cellvit_jax.errors import InputError
from cellvit_jax.inference.classify import classify
from cellvit_jax.inference.cores import usable_cores
from cellvit_jax.inference.plan import Plan
from cellvit_jax.inference.predictor import Maps, Predictor
from cellvit_jax.inference.queues import ahead, parallel
from cellvit_jax.inference.report import Report
from cellvit_jax.slides import Tile, read_tile

Place = tuple[int, int]  # row and column in the grid
Predict = Callable[[Iterable[np.ndarray]], Iterator[Maps]]
PLANES = ("binary", "edge", "types", "probabilities")  # of a tile, from the network
BLANK = 255  # what the network is shown instead of a tile that cannot be read


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """What is left of a tile: the nucleus pixels of its core, and its tokens if wanted."""

    place: Place
    piece: Piece | None
    tokens: Tokens | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """A row of the grid done: its number, what it leaves to the next, and the cells now final.

    The table has the columns of `Cells`, in the view's pixels.
    """

    number: int
    remains: Remains
    table: pa.Table


def rows(
    plan: Plan,
    predictor: Predictor,
    report: Report,
    *,
    after: Row | None = None,
    done: Sequence[Seen] = (),
    runs: bool = False,
    watch: Callable[[Iterator[Seen]], Iterator[Seen]] = lambda seen: seen,
    workers: int | None = None,
    stages: Stages | None = None,
) -> Iterator[Row]:
    """The rows of the plan's grid, from the one below `after` on, of which the tiles `done` are.

    Tiles go through the network in the batches of an uninterrupted run, wherever this one begins.
    With `runs` the tables have that column, for label images. `watch` is shown every tile that
    comes out of the network. `workers` is the number of threads beside the network's, by default
    the cores that this process may use. `stages` are `CELLS` unless something else is wanted.
    """
    stages = stages or CELLS
    workers = workers or usable_cores()
    places = plan.places
    first = len(done) + int(
        np.searchsorted(places[:, 0], after.number if after else -1, side="right")
    )
    begin = first - first % predictor.batch_size
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        tiles = _closing(stack, read(plan, places[begin:], report, pool, workers + 1))
        maps = _closing(stack, ahead(predict(tiles, predictor, plan.shown), 2))
        fresh = itertools.islice(maps, first - begin, None)
        seen = _closing(stack, stages.extract(fresh, report, pool, workers + 1))
        new = _closing(stack, watch(seen))
        every = itertools.chain(done, new)
        for row in stages.assemble(plan, every, report, pool, after, runs):
            yield typed(row, predictor, report)


def _closing(stack: ExitStack, stage: Iterator[Any]) -> Iterator[Any]:
    """Stages are closed from the last to the first, whatever ends the work."""
    return stack.enter_context(closing(stage))  # type: ignore[type-var]


def read(
    plan: Plan, places: np.ndarray, report: Report, pool: Executor, depth: int
) -> Iterator[tuple[Tile, Place, np.ndarray | None]]:
    """The tiles at `places` with their pixels, None where the report says that they are lost."""

    def read_one(place: np.ndarray):
        at = int(place[0]), int(place[1])
        tile = plan.grid[at]
        try:
            with report.stage("read"):
                return tile, at, read_tile(plan.view, tile)
        except InputError as error:
            x, y = (round(n / plan.view.factor) for n in (max(tile.col, 0), max(tile.row, 0)))
            report.lost(x, y, str(error))
            return tile, at, None

    return parallel(read_one, places, pool, depth)


def predict(
    tiles: Iterable[tuple[Tile, Place, np.ndarray | None]],
    network: Predict,
    shown: Callable[[np.ndarray], np.ndarray] = lambda pixels: pixels,
) -> Iterator[tuple[Tile, Place, Maps | None]]:
    """The tiles with their maps, among which their pixels are; the network sees what is `shown`."""
    ours, theirs = itertools.tee(tiles)
    images = (shown(_or_blank(tile, pixels)) for tile, _, pixels in theirs)
    for (tile, place, pixels), maps in zip(ours, network(images), strict=True):
        yield tile, place, maps | {"pixels": pixels} if pixels is not None else None


def _or_blank(tile: Tile, pixels: np.ndarray | None) -> np.ndarray:
    return np.full((tile.size, tile.size, 3), BLANK, np.uint8) if pixels is None else pixels


def extract(
    tiles: Iterable[tuple[Tile, Place, Maps | None]], report: Report, pool: Executor, depth: int
) -> Iterator[Seen]:
    """What is left of each tile when its maps are no longer needed."""

    def extract_one(item: tuple[Tile, Place, Maps | None]) -> Seen:
        tile, place, maps = item
        if maps is None:
            return Seen(place, None)
        with report.stage("extract"):
            return Seen(place, piece_of(tile, maps), tokens_of(tile, maps.get("tokens")))

    return parallel(extract_one, tiles, pool, depth)


def piece_of(tile: Tile, maps: Maps) -> Piece:
    """The nucleus pixels of a tile's core."""
    (r0, c0), (r1, c1) = tile.core
    core = np.s_[r0 - tile.row : r1 - tile.row, c0 - tile.col : c1 - tile.col]
    chosen: dict[str, Any] = {name: maps[name][core] for name in PLANES if name in maps}
    planes = Planes(**chosen)
    if not np.isfinite(planes.edge).all():
        raise InputError("edges are NaN: the network's output is broken")
    piece = Piece.of(planes, r0, c0)
    pixels = maps["pixels"][core][piece.mask > 0]
    return dataclasses.replace(piece, haematoxylin=haematoxylin(pixels))


def tokens_of(tile: Tile, tokens: np.ndarray | None) -> Tokens | None:
    """The tokens of the image's token cells that begin in a tile's core.

    Those cells are as large as the tile's are, each takes the token under its centre.
    """
    if tokens is None:
        return None
    sides = Fraction(tile.size, tokens.shape[0]), Fraction(tile.size, tokens.shape[1])
    rows, cols = (
        np.clip(_cells_under(token_cells(first, end, side), side, origin), 0, n - 1)
        for side, origin, first, end, n in zip(
            sides, (tile.row, tile.col), *tile.core, tokens.shape, strict=False
        )
    )
    return Tokens(tokens[np.ix_(rows, cols)], sides, math.ceil(tile.core[0][0] / sides[0]))


def token_cells(first: int, end: int, side: Fraction) -> np.ndarray:
    """Along an axis, the token cells of an image that begin in pixels `first` to `end`."""
    return np.arange(math.ceil(first / side), math.ceil(end / side))


def _cells_under(cells: np.ndarray, side: Fraction, origin: int) -> np.ndarray:
    """Of a tile with that origin, the token cells under the centres of those of the image."""
    pixels, per = side.as_integer_ratio()
    return ((2 * cells + 1) * pixels - 2 * per * origin) // (2 * pixels)


def assemble(
    plan: Plan,
    seen: Iterator[Seen],
    report: Report,
    pool: Executor,
    after: Row | None,
    runs: bool,
    masked: bool = False,
) -> Iterator[Row]:
    """The rows of the grid as they become complete; rows without tiles and cells are left out.

    With `masked`, tokens are means over pixels in place of boxes.
    """
    remains, first = (after.remains, after.number + 1) if after else (Remains(), 0)
    last, width = len(plan.grid.rows) - 1, plan.view.size[1]
    for number in range(first, last + 1):
        tiles = list(itertools.islice(seen, int(plan.wanted[number].sum())))
        if not (tiles or remains.pieces or number == last):
            continue
        pieces = [tile.piece for tile in tiles if tile.piece]
        tokens = token_rows(plan, number, tiles, remains.tokens)
        band = Band(pieces, plan.grid.rows[number][2], number == last, tokens)
        with report.stage("stitch"):
            remains, table = advance(
                remains,
                band,
                width,
                runs=runs,
                masked=masked,
                keep=plan.counted,
                run=partial(spread, pool),
            )
        del tiles, pieces, tokens, band  # before the next row comes in: they are what is large
        yield Row(number, remains, table)
        del table


def token_rows(plan: Plan, number: int, tiles: list[Seen], above: Tokens | None) -> Tokens | None:
    """The rows of the image's token grid that begin in a row of the plan's grid, if any."""
    parts = [(plan.grid.cols[tile.place[1]][1], tile.tokens) for tile in tiles if tile.tokens]
    like = parts[0][1] if parts else above
    if like is None:
        return None
    height, width = like.sides
    rows = token_cells(*plan.grid.rows[number][1:], height)
    cols = token_cells(0, plan.view.size[1], width)
    if not len(rows):
        return None
    grid = np.zeros((len(rows), len(cols), like.grid.shape[2]), np.float32)
    for first, part in parts:
        left = math.ceil(first / width)
        grid[:, left : left + part.grid.shape[1]] = part.grid
    return Tokens(grid, like.sides, int(rows[0]))


def typed(row: Row, predictor: Predictor, report: Report) -> Row:
    """The row with the types of the predictor's head, if there is one."""
    if predictor.head is None:
        return row
    with report.stage("classify"):
        table = classify(row.table, predictor.head, keep_tokens=predictor.tokens)
    return dataclasses.replace(row, table=table)


def spread(pool: Executor, function: Callable, jobs: Iterable) -> Iterator[Any]:
    """`map` in the threads of a pool."""
    return parallel(function, jobs, pool, 2 * usable_cores())


@dataclasses.dataclass(frozen=True)
class Stages:
    """What becomes of maps: what is left of each tile, and of those what a row leaves."""

    extract: Callable[..., Iterator[Seen]]
    assemble: Callable[..., Iterator[Row]]


CELLS = Stages(extract, assemble)
MASKED_CELLS = Stages(extract, partial(assemble, masked=True))
