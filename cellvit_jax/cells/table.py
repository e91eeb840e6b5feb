"""Cells as columns: what extraction makes, stitching moves and exports write."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa

# type id -> (name, RGB); 0 is background and is no class of a cell
Classes = dict[int, tuple[str, tuple[int, int, int]]]


@dataclasses.dataclass(frozen=True, eq=False)
class Cells:
    """The cells of one image: an Arrow table, one row a cell, and what its numbers mean.

    Columns of `table` (pixels are those of the image the cells were found in; x is the column):
      id              int64, 1..N, the value in the instance map
      centroid_x/_y   float64, pixel-centre coordinates
      bbox_r0/_c0/_r1/_c1  int32, end exclusive
      area            float64, pixels
      type            int32, class id (0 = background)
      type_prob       float32, share of the cell's pixels that voted for `type`
      probabilities   list<float32>, mean class probabilities over the pixels, index = class id
                      (absent when extraction was given none)
      contour         list<fixed_size_list<float32>[2]>, (x, y) through pixel centres, not closed
      token           fixed_size_list<float32>[D] (absent when extraction was given none)
    """

    table: pa.Table
    classes: Classes = dataclasses.field(default_factory=dict)
    mpp: float | None = None  # µm per pixel of the coordinates, None if unknown

    def __len__(self) -> int:
        return self.table.num_rows

    def column(self, name: str) -> np.ndarray:
        """Column `name` as a NumPy array (numeric columns only)."""
        return self.table[name].to_numpy()

    def replace_columns(self, **columns: pa.Array | np.ndarray) -> Cells:
        """The same cells with some columns replaced or added."""
        table = self.table
        for name, values in columns.items():
            index = table.schema.get_field_index(name)
            array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
            table = (
                table.append_column(name, array)
                if index < 0
                else table.set_column(index, name, array)
            )
        return dataclasses.replace(self, table=table)
