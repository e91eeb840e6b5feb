"""Cells as columns: what extraction makes, stitching moves and exports write."""

from __future__ import annotations

import dataclasses
import math

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
      type_prob       float32, share of the cell's pixels that voted for `type`; from a
                      classifier head, the probability of `type`
      probabilities   list<float32>, mean class probabilities over the pixels, or those of a
                      head, index = class id (absent when extraction was given none)
      contour         list<fixed_size_list<float32>[2]>, (x, y) through pixel centres, not closed
      token           fixed_size_list<float32>[D] (absent when extraction was given none)
    and, where they were measured: perimeter (pixels), eccentricity, solidity (see `shapes`),
    haematoxylin_mean and haematoxylin_sd (see `stain`), all float32.
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

    def scaled(self, sx: float, sy: float) -> Cells:
        """The same cells in an image that is `sx` times as wide and `sy` times as high.

        Pixel centres go to (x + 0.5)·s - 0.5, boxes are rounded outward, areas grow by sx·sy,
        perimeters by its root.
        """
        factor = np.array([sx, sy], np.float32)
        length = math.sqrt(sx * sy)
        contour = self.table["contour"].combine_chunks()
        points = contour.flatten().flatten().to_numpy().reshape(-1, 2)
        moved = pa.FixedSizeListArray.from_arrays(((points + 0.5) * factor - 0.5).reshape(-1), 2)
        scaled = self.replace_columns(
            centroid_x=(self.column("centroid_x") + 0.5) * sx - 0.5,
            centroid_y=(self.column("centroid_y") + 0.5) * sy - 0.5,
            bbox_r0=np.floor(self.column("bbox_r0") * sy).astype(np.int32),
            bbox_c0=np.floor(self.column("bbox_c0") * sx).astype(np.int32),
            bbox_r1=np.ceil(self.column("bbox_r1") * sy).astype(np.int32),
            bbox_c1=np.ceil(self.column("bbox_c1") * sx).astype(np.int32),
            area=self.column("area") * sx * sy,
            contour=pa.ListArray.from_arrays(_offsets(contour), moved),
        )
        if "perimeter" in self.table.schema.names:
            perimeter = self.column("perimeter") * np.float32(length)
            scaled = scaled.replace_columns(perimeter=perimeter)
        return dataclasses.replace(scaled, mpp=self.mpp and self.mpp / length)


def _offsets(lists: pa.ListArray) -> pa.Array:
    """Offsets from zero, also for a slice of a longer array."""
    offsets = lists.offsets.to_numpy()
    return pa.array(offsets - offsets[0], pa.int32())
