"""Cells that come block by block: what every writer takes, so that its memory is bounded."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import itertools
from collections.abc import Iterable, Iterator

import pyarrow as pa

from cellvit_jax.cells.table import Cells
from cellvit_jax.errors import InputError

# All cells at once, or block by block. The first block says which columns, classes and resolution
# hold for all, so there is at least one: an empty result is a block without rows.
Source = Cells | Iterable[Cells]


def opened(source: Source) -> tuple[Cells, Iterator[pa.Table]]:
    """What holds for all cells of `source`, as `Cells` without rows, and the tables of its blocks.

    Raises `InputError` where there is no block; the iterator raises it for a block with other
    columns than the first.
    """
    blocks = iter([source] if isinstance(source, Cells) else source)
    first = next(blocks, None)
    if first is None:
        raise InputError("no block of cells to write: an empty result is one block without rows")
    schema = first.table.schema
    tables = (_checked(block.table, schema) for block in itertools.chain([first], blocks))
    return dataclasses.replace(first, table=schema.empty_table()), tables


def regrouped(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.RecordBatch]:
    """All rows in batches of exactly `rows`, but for the last: files do not depend on blocks."""
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        waiting.append(table)
        count += table.num_rows
        if count >= rows:
            joined = pa.concat_tables(waiting)
            full = count - count % rows
            for start in range(0, full, rows):
                yield _batch(joined.slice(start, rows))
            waiting, count = [joined.slice(full)], count - full
    if count:
        yield _batch(pa.concat_tables(waiting))


def _checked(table: pa.Table, schema: pa.Schema) -> pa.Table:
    if table.schema != schema:
        raise InputError(
            f"a block of cells has the columns {', '.join(table.schema.names)}, the first one has "
            f"{', '.join(schema.names)}: they must be the same, their types too"
        )
    return table


def _batch(table: pa.Table) -> pa.RecordBatch:
    (batch,) = table.combine_chunks().to_batches()
    return batch


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection inside: it is most of the time that a million small objects cost.

    Around the work on one batch, never around a whole stream, whose source may need collection.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
