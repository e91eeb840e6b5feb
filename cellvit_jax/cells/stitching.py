"""The cells of an image of any height, band by band, as if it had been one tile.

The unit is the clump (see `clumps`). What a band of the image holds whole is solved in it; what is
open at its lower edge waits for the next one, so that memory is bounded by a band.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cellvit_jax.cells.canvas import REACH, Canvas, Map
from cellvit_jax.cells.compiled import compiled
from cellvit_jax.cells.pieces import Piece, Tokens
from cellvit_jax.cells.planes import Planes
from cellvit_jax.cells.table import Cells

BLOCK = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class Band:
    """All columns of an image, down to row `bottom`, as pieces; `last` if the image ends there."""

    pieces: Sequence[Piece]
    bottom: int
    last: bool
    tokens: Tokens | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Remains:
    """What a band leaves to the next one.

    `pieces` hold the open clumps, `cuts` are the first rows of the bands that they reach into.
    Context pixels belong to cells with a centroid above `line`, which are found already. `waiting`
    are cells that another may still come before; `found` have been numbered.
    """

    pieces: tuple[Piece, ...] = ()
    cuts: tuple[int, ...] = ()
    line: int = 0
    waiting: pa.Table | None = None
    found: int = 0
    tokens: Tokens | None = None


def advance(
    remains: Remains,
    band: Band,
    width: int,
    *,
    runs: bool = False,
    masked: bool = False,
    keep: Callable[[pa.Table], pa.Table] = lambda table: table,
    run: Map = map,
) -> tuple[Remains, pa.Table]:
    """Add a band to what is left of those above: what is left then, and the cells that are final.

    The table is that of `Cells`, in the raster order of first pixels over all bands, numbered from
    1 on; with `runs` it has that column too, from which `painted` makes label images, with `masked`
    tokens are means over pixels in place of boxes. Neither the
    height of the bands nor the sides of their pieces changes a cell. `keep` chooses the cells of a
    table that count. `run` maps a function over
    jobs in order, as `map` does, and may do so in several threads.
    """
    tokens = Tokens.joined(remains.tokens, band.tokens)
    cuts = (*remains.cuts, remains.line, *(piece.row for piece in band.pieces))
    canvas = Canvas([*remains.pieces, *band.pieces], cuts, band.bottom, width, remains.line, tokens)
    kept, line = ((), remains.line) if band.last else canvas.hold()
    tables = [remains.waiting] if remains.waiting else []
    tables += canvas.solve(runs, run, masked)
    top = min((piece.row for piece in kept), default=band.bottom)
    final, waiting = _divided(keep(joined(tables)), None if band.last else top)
    left = Remains(
        kept,
        tuple(sorted({cut for cut in cuts if cut > top})),
        line,
        waiting,
        remains.found + final.num_rows,
        tokens and tokens.below(top),
    )
    ids = pa.array(np.arange(remains.found + 1, left.found + 1))
    return left, final.drop_columns(["first_col"]).add_column(0, "id", ids)


def filled(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The tables that have rows, or else the first: without nuclei it lacks the columns of maps."""
    empty, found = None, False
    for table in tables:
        if table.num_rows:
            found = True
            yield table
        elif empty is None:
            empty = table
    if empty is not None and not found:
        yield empty


def joined(tables: Iterable[pa.Table]) -> pa.Table:
    """One table of several."""
    return pa.concat_tables(filled(tables))


def _divided(table: pa.Table, top: int | None) -> tuple[pa.Table, pa.Table | None]:
    """The cells in order: those that none can come before any more, and the others."""
    table = table.combine_chunks().sort_by([("bbox_r0", "ascending"), ("first_col", "ascending")])
    if top is None:
        return table, None
    final = pc.less(table["bbox_r0"], top)
    return table.filter(final), table.filter(pc.invert(final))


def stitch(planes: Planes, *, block: int = BLOCK) -> tuple[np.ndarray, Cells]:
    """Label image uint32 (H, W) and `Cells` of a whole image.

    They are those of one tile of the image's size, whatever the `block`, which sets the working
    memory, but for clumps that exceed `REACH`. Instances that are not reported (see
    `extract_cells`) are left out of the label image.
    """
    height, width = planes.binary.shape
    block = min(block, REACH)
    sides = itertools.product(range(0, height, block), range(0, width, block))
    pieces = [
        Piece.of(planes.crop(r, c, min(r + block, height), min(c + block, width)), r, c)
        for r, c in sides
    ]
    tokens = None if planes.tokens is None else Tokens(planes.tokens, planes.token_sides)
    _, table = advance(Remains(), Band(pieces, height, True, tokens), width, runs=True)
    return painted(table, (height, width)), Cells(table.drop_columns(["runs"]))


def painted(table: pa.Table, shape: tuple[int, int]) -> np.ndarray:
    """The label image uint32 `shape` of cells that have the column `runs`."""
    labels = np.zeros(shape, np.uint32)
    for batch in table.to_batches():
        runs = batch["runs"]
        values = runs.flatten().to_numpy().reshape(-1, 3)
        counts = runs.value_lengths().to_numpy() // 3
        _paint(values, np.repeat(batch["id"].to_numpy(), counts), labels)
    return labels


@compiled
def _paint(runs, ids, labels):
    for i in range(len(runs)):
        labels[runs[i, 0], runs[i, 1] : runs[i, 2]] = ids[i]
