"""The commands `cellvit-jax data …`: arguments in, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

app = tyro.extras.SubcommandApp()

Source = Annotated[Positional[Path], arg(metavar="SRC")]
Target = Annotated[Positional[Path], arg(metavar="DST")]
Format = Literal["prepared", "plain", "cellvit"]


@app.command
def inspect(
    source: Source,
    /,
    split: tuple[str, ...] = (),
    layout: str | None = None,
    sheet: Path | None = None,
    quiet: bool = False,
) -> None:
    """Print what annotated data holds, and what to look at before training on it.

    Args:
        source: a folder of annotated images, in any layout of docs/data.md.
        split: only these splits, such as train or fold1.
        layout: which layout it is, where the content leaves that open.
        sheet: write a page of pictures with the nuclei outlined to this PNG.
        quiet: show no progress.
    """
    from cellvit_jax.data import tasks

    print(tasks.inspect(source, split, layout, sheet, quiet=quiet))


@app.command
def prepare(
    source: Source,
    target: Target,
    /,
    split: tuple[str, ...] = (),
    layout: str | None = None,
    to: Format = "prepared",
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Store annotated data in a few files to train from, or in a form that other programs read.

    Args:
        source: a folder of annotated images, in any layout of docs/data.md.
        target: the folder to write.
        split: only these splits, such as train or fold1.
        layout: which layout it is, where the content leaves that open.
        to: prepared (a TensorFlow Datasets folder, to train from), plain (PNG images, masks and
            types) or cellvit (the folds that CellViT trains on, with their CSV files).
        overwrite: replace a folder that is there already.
        quiet: show no progress.
    """
    from cellvit_jax.data import tasks

    print(tasks.prepare(source, target, split, layout, to, overwrite=overwrite, quiet=quiet))


@app.command(name="from-qupath")
def from_qupath(
    images: Annotated[Positional[Path], arg(metavar="IMAGES")],
    annotations: Annotated[Positional[Path], arg(metavar="GEOJSON")],
    target: Target,
    /,
    classes: tuple[str, ...] = (),
    mpp: float | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Make a training set of cells that were outlined or corrected in QuPath.

    Rectangles of QuPath's class "Region*" say where all cells are annotated, and each becomes a
    field; without them the whole image does.

    Args:
        images: an image or a slide, or a folder of them.
        annotations: its GeoJSON as QuPath exports it, or a folder with one of each image's name.
        target: the folder to write.
        classes: names of the cell types in the order of their ids; by default all that occur.
        mpp: resolution in µm per pixel; wins over what the images say.
        overwrite: replace a folder that is there already.
        quiet: show no progress.
    """
    from cellvit_jax.data import tasks

    print(
        tasks.from_qupath(
            images, annotations, target, classes, mpp, overwrite=overwrite, quiet=quiet
        )
    )
