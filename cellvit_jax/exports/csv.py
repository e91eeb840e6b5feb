"""Measurements as CSV: one row a cell, all that is one number or a name, UTF-8, with a header.

The columns of the table, but for outlines and tokens; `probability_<class>` for every class. What
is unknown is empty.
"""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.csv

from cellvit_jax.cells.table import Cells
from cellvit_jax.exports.blocks import Source, opened, regrouped
from cellvit_jax.exports.columns import probabilities, scalars
from cellvit_jax.files import atomic_open

_ROWS = 65_536


def write(cells: Source, path: str | os.PathLike[str]) -> None:
    """Write `cells` to `path`. Raises OutputError."""
    head, tables = opened(cells)
    empty = pa.RecordBatch.from_pylist([], head.table.schema)
    batches = regrouped(tables, _ROWS)
    first = next(batches, empty)
    rows = _flat(first, head)
    with atomic_open(path) as file, pyarrow.csv.CSVWriter(file, rows.schema) as writer:
        writer.write_batch(rows)
        for batch in batches:
            writer.write_batch(_flat(batch, head))


def _flat(batch: pa.RecordBatch, head: Cells) -> pa.RecordBatch:
    of_classes = probabilities(batch, head.classes)
    named = {f"probability_{name}": pa.array(values) for name, values in of_classes.items()}
    return pa.RecordBatch.from_pydict(scalars(batch, head) | named)
