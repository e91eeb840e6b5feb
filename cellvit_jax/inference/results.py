"""The folder of results of one slide."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson
import pyarrow as pa
from PIL import Image, ImageDraw

from cellvit_jax import exports
from cellvit_jax.card import ModelCard
from cellvit_jax.cells import Cells, filled, joined, painted
from cellvit_jax.errors import OutputError
from cellvit_jax.exports import embeddings, labels, overlay
from cellvit_jax.files import atomic_open
from cellvit_jax.inference.journal import check_arguments
from cellvit_jax.inference.plan import Plan
from cellvit_jax.inference.segment import cells_of, enlarge
from cellvit_jax.slides import ImageSlide, overview
from cellvit_jax.slides.collection import slide_name

REPORT, LOOKED_AT = "report.json", "tissue.png"
MOST_LABELLED = 100_000_000  # pixels of a label image: it is held in memory
PICTURE = 4096  # pixels of the longer side of an overlay


class Result(Protocol):
    """What files are written of."""

    @property
    def mpp(self) -> float | None:
        """µm per level-0 pixel."""

    def blocks(self) -> Iterator[Cells]:
        """The cells, in level-0 pixels, block by block."""

    def label_image(self) -> np.ndarray:
        """The ids as a map, in level-0 pixels."""

    def picture(self) -> tuple[np.ndarray, float]:
        """What cells are drawn on, uint8 (H, W, 3), and how large it is beside level 0."""


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """What a run found: a function that gives the pipeline's tables, and where they come from."""

    plan: Plan
    card: ModelCard
    tables: Callable[[], Iterable[pa.Table]]

    @property
    def mpp(self) -> float:
        """µm per level-0 pixel."""
        return self.plan.mpp

    def blocks(self) -> Iterator[Cells]:
        """The cells, in level-0 pixels, block by block."""
        for table in filled(self.tables()):
            kept = [name for name in table.column_names if name != "runs"]
            yield cells_of(table.select(kept), self.plan, self.card)

    def embedded(self, table: pa.Table) -> pa.Table:
        """Of a table with the column `token`: positions in level-0 pixels, types, vectors."""
        columns = {"id": table["id"]}
        for axis in "xy":
            place = table[f"centroid_{axis}"].to_numpy()
            columns[axis] = pa.array((place + 0.5) / self.plan.view.factor - 0.5)
        if "type" in table.column_names:
            names = {i: name for i, (name, _) in self.card.cell_classes.items()}
            kinds = [names.get(i, f"class {i}") for i in table["type"].to_pylist()]
            columns["type_name"] = pa.array(kinds, pa.string())
        else:
            side = self.plan.grid.tile / self.plan.view.factor
            columns["side"] = pa.array(np.full(table.num_rows, side))
        return pa.table(columns | {"embedding": embeddings.halves(table)})

    def label_image(self) -> np.ndarray:
        """The ids as a map, in level-0 pixels."""
        instances = painted(joined(self.tables()), self.plan.view.size)
        return enlarge(instances, self.plan.slide.size)

    def picture(self) -> tuple[np.ndarray, float]:
        """The slide, reduced where it is large, and by how much."""
        slide = self.plan.slide
        if isinstance(slide, ImageSlide):
            return slide.pixels, 1.0
        factor = min(1.0, PICTURE / max(slide.size))
        return overview(slide, factor), factor


def write_cells(found: Result, path: Path) -> None:
    """The cells in the format that the file's name ends in."""
    exports.write(found.blocks(), path)


def write_labels(found: Result, path: Path) -> None:
    """The label image."""
    labels.write(found.label_image(), path, mpp=found.mpp)


def write_overlay(found: Result, path: Path) -> None:
    """The cells drawn on the slide."""
    pixels, scale = found.picture()
    overlay.write(found.blocks(), pixels, path, scale=scale)


# name of an export -> file, and what writes it
WRITERS: dict[str, tuple[str, Callable[[Result, Path], None]]] = {
    "parquet": ("cells.parquet", write_cells),
    "geojson": ("cells.geojson", write_cells),
    "json": ("cells.json", write_cells),
    "instances": ("instances.tif", write_labels),
    "overlay": ("overlay.png", write_overlay),
}


def write_embeddings(found: Found, path: Path) -> None:
    """Positions and vectors, of cells or of patches, in the format that the name ends in."""
    embeddings.write(map(found.embedded, filled(found.tables())), path, mpp=found.mpp)


EMBEDDINGS: dict[str, tuple[str, Callable[..., None]]] = {
    kind: (f"embeddings.{kind}", write_embeddings) for kind in ("parquet", "h5ad", "zarr")
}


def labelled(plan: Plan) -> bool:
    """Whether the slide is small enough for a label image."""
    return max(int(np.prod(size)) for size in (plan.view.size, plan.slide.size)) <= MOST_LABELLED


def write(
    found: Any,
    folder: Path,
    export: Sequence[str] = tuple(WRITERS),
    writers: Mapping[str, tuple[str, Callable[..., None]]] = WRITERS,
) -> None:
    """The wanted files of a result into an existing folder."""
    for kind in export:
        name, writer = writers[kind]
        writer(found, folder / name)


def free_folder(image: Path, out: Path, overwrite: bool) -> Path:
    """The folder of an image's results; results already there are refused. Raises OutputError."""
    folder = out / slide_name(image)
    if folder.exists() and not overwrite:
        raise OutputError(f"{folder} is there already: give --overwrite to replace it")
    return folder


def make_folder(out: Path) -> None:
    """The output folder, so that one that cannot be written is known before the network runs."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise OutputError(f"cannot write into {out}: {error.strerror}") from error


def write_looked_at(plan: Plan, folder: Path) -> None:
    """The picture of what was looked at."""
    with atomic_open(folder / LOOKED_AT) as file:
        looked_at(plan).save(file, format="PNG")


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
