"""Columns as files have them: with the names of types, sizes in µm, a column a class."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cellvit_jax.cells.table import Cells, Classes
from cellvit_jax.exports.classes import completed, names_of

# column of `Cells` in pixels -> the one in µm that files have beside it, and the power of length
IN_MICRONS = {"area": ("area_um2", 2), "perimeter": ("perimeter_um", 1)}
DERIVED = {name for name, _ in IN_MICRONS.values()} | {"type_name"}


def described(batch: pa.RecordBatch, head: Cells) -> dict[str, pa.Array]:
    """The columns of `batch`; `area_um2`, `perimeter_um`, `type_name` follow what they describe."""
    columns = {}
    for name, values in zip(batch.schema.names, batch.columns, strict=True):
        columns[name] = values
        if name in IN_MICRONS:
            derived, power = IN_MICRONS[name]
            columns[derived] = _in_microns(values, power, head.mpp)
        elif name == "type":
            columns["type_name"] = names_of(values, head.classes)
    return columns


def scalars(batch: pa.RecordBatch, head: Cells) -> dict[str, pa.Array]:
    """Those of the `described` columns that hold one number or name a cell."""
    columns = described(batch, head)
    return {name: c for name, c in columns.items() if not pa.types.is_nested(c.type)}


def probabilities(batch: pa.RecordBatch, classes: Classes) -> dict[str, np.ndarray]:
    """Class name -> its probability in every cell, (N,) float32, for all classes but background."""
    if "probabilities" not in batch.schema.names:
        return {}
    if not len(batch):
        return {name: np.zeros(0, np.float32) for name, _ in classes.values()}
    values = batch["probabilities"].flatten().to_numpy().reshape(len(batch), -1)
    ids = range(1, values.shape[1])
    named = completed(classes, ids)
    return {named[c][0]: values[:, c] for c in ids}


def _in_microns(values: pa.Array, power: int, mpp: float | None) -> pa.Array:
    if mpp is None:
        return pa.nulls(len(values), values.type)
    return pa.array(values.to_numpy() * mpp**power, values.type)
