"""The folder of results of one slide."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from PIL import Image, ImageDraw

from cellvit_jax import exports
from cellvit_jax.card import ModelCard
from cellvit_jax.cells import Cells, filled, joined, painted
from cellvit_jax.errors import OutputError
from cellvit_jax.exports import labels, overlay
from cellvit_jax.files import atomic_open
from cellvit_jax.inference.journal import check_arguments
from cellvit_jax.inference.plan import Plan
from cellvit_jax.inference.segment import cells_of, enlarge
from cellvit_jax.slides import ImageSlide, overview

REPORT, LOOKED_AT = "report.json", "tissue.png"
MOST_LABELLED = 100_000_000  # pixels of a label image: it is held in memory
PICTURE = 4096  # pixels of the longer side of an overlay


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """What a run found: a function that gives the pipeline's tables, and where they come from."""

    plan: Plan
    card: ModelCard
    tables: Callable[[], Iterable[pa.Table]]

    def blocks(self) -> Iterator[Cells]:
        """The cells, in level-0 pixels, block by block."""
        for table in filled(self.tables()):
            kept = [name for name in table.column_names if name != "runs"]
            yield cells_of(table.select(kept), self.plan, self.card)

    def cells(self) -> Cells:
        """All cells at once."""
        blocks = list(self.blocks())
        return dataclasses.replace(blocks[0], table=pa.concat_tables(b.table for b in blocks))


def write_cells(found: Found, path: Path) -> None:
    """The cells in the format that the file's name ends in."""
    exports.write(found.cells(), path)


def write_labels(found: Found, path: Path) -> None:
    """The label image, in level-0 pixels."""
    instances = painted(joined(found.tables()), found.plan.view.size)
    labels.write(enlarge(instances, found.plan.slide.size), path, mpp=found.plan.mpp)


def write_overlay(found: Found, path: Path) -> None:
    """The cells drawn on the slide, reduced where it is large."""
    slide, cells = found.plan.slide, found.cells()
    if isinstance(slide, ImageSlide):
        overlay.write(cells, slide.pixels, path)
        return
    factor = min(1.0, PICTURE / max(slide.size))
    overlay.write(cells.scaled(factor, factor), overview(slide, factor), path)


# name of an export -> file, and what writes it
WRITERS: dict[str, tuple[str, Callable[[Found, Path], None]]] = {
    "parquet": ("cells.parquet", write_cells),
    "geojson": ("cells.geojson", write_cells),
    "json": ("cells.json", write_cells),
    "instances": ("instances.tif", write_labels),
    "overlay": ("overlay.png", write_overlay),
}


def labelled(plan: Plan) -> bool:
    """Whether the slide is small enough for a label image."""
    return max(int(np.prod(size)) for size in (plan.view.size, plan.slide.size)) <= MOST_LABELLED


def write(found: Found, folder: Path, export: Sequence[str]) -> None:
    """The wanted files, and the picture of what was looked at, into an existing folder."""
    for kind in export:
        name, writer = WRITERS[kind]
        writer(found, folder / name)
    with atomic_open(folder / LOOKED_AT) as file:
        looked_at(found.plan).save(file, format="PNG")


def looked_at(plan: Plan) -> Image.Image:
    """The tissue mask, white, and the cores of the wanted tiles, outlined in red."""
    picture = Image.fromarray(plan.mask.pixels.astype(np.uint8) * 255).convert("RGB")
    pen = ImageDraw.Draw(picture)
    scale = plan.mask.factor / plan.view.factor
    for row, col in plan.places.tolist():
        (r0, c0), (r1, c1) = plan.grid[row, col].core
        corners = [round(n * scale) for n in (c0, r0, c1, r1)]
        pen.rectangle((*corners[:2], *np.maximum(corners[2:], corners[:2])), outline=(200, 0, 0))
    return picture


def write_report(values: Mapping[str, Any], folder: Path) -> None:
    """The report as JSON."""
    with atomic_open(folder / REPORT) as file:
        file.write(orjson.dumps(values, option=orjson.OPT_INDENT_2) + b"\n")


def check_made_by(folder: Path, arguments: Mapping[str, Any]) -> None:
    """Raises OutputError unless the results in `folder` are of a run with these arguments."""
    try:
        before = orjson.loads((folder / REPORT).read_bytes())["arguments"]
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(f"{folder} is there already: give --overwrite to replace it") from error
    check_arguments(folder, before, arguments)
