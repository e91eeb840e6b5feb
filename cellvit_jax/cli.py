"""The command `cellvit-jax`: arguments in, a sentence out. Everything else is imported on use."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from cellvit_jax import (
    cli_compile,
    cli_data,
    cli_distil,
    cli_head,
    cli_pretrain,
    cli_probe,
    cli_train,
    zoo,
)
from cellvit_jax.cli_compile import DType, Kernel
from cellvit_jax.errors import CellViTError, printable, show_warnings

Export = Literal["parquet", "geojson", "json", "instances", "overlay"]
EXPORTS: tuple[Export, ...] = get_args(Export)
Later = Literal[
    "geojson",
    "geojson.gz",
    "json",
    "cell_detection.json",
    "csv",
    "h5ad",
    "zarr",
    "spatialdata.zarr",
    "graph.npz",
]

SOME_FAILED = 3  # exit code

app = tyro.extras.SubcommandApp()


@app.command
def segment(
    slides: Annotated[
        Positional[list[Path]], arg(metavar="SLIDE [SLIDE ...]", help_behavior_hint="(required)")
    ],
    /,
    out: Path,
    model: str = zoo.DEFAULT,
    head: Path | None = None,
    binary: bool = False,
    mpp: float | None = None,
    tissue: str | None = None,
    roi: str | None = None,
    export: tuple[Export, ...] = EXPORTS,
    tokens: bool = False,
    batch_size: int | None = None,
    extension: Annotated[tuple[str, ...], arg(help_behavior_hint="(default: all)")] = (),
    shard: str | None = None,
    scheduler: str | None = None,
    dtype: DType = "float32",
    attention: Kernel = "xla",
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Find, outline and type every nucleus of slides and images.

    A run that was stopped goes on where it was when it is started again in the same way. Of several
    slides, one that fails does not stop the others: a table says so, and the exit code is 3.

    Args:
        slides: whole slides (svs, ndpi, mrxs, scn, vms, bif, DICOM, TIFF pyramids), PNG, JPEG, TIFF
            or .npy files of H&E stained tissue; folders of them, a folder of DICOM files, quoted
            patterns, or CSV files with a path and, if known, µm per pixel in each line.
        out: folder for the results; each slide gets a folder of its own in it.
        model: a model folder (see cellvit-convert) or the name of a bundled model.
        head: the folder of a cell classifier head, whose types replace the model's.
        binary: nuclei without types: one class, and none dropped for looking like background.
        mpp: resolution in µm per pixel; wins over what the files say.
        tissue: where to look: otsu (coloured areas; slides, by default), none (everywhere; images,
            by default), or the path of a mask, PNG or GeoJSON.
        roi: look only into this rectangle of full-resolution pixels: x,y,width,height.
        export: which files to write.
        tokens: keep a vector of the network's features for each cell, in cells.parquet.
        batch_size: tiles per call of the network; by default 1 on CPU, 8 a device elsewhere.
        extension: of folders, take only files that end so.
        shard: take only every n-th slide: i/n, i from 0 to n - 1, for job arrays.
        scheduler: address of a dask scheduler whose workers are to do the work.
        dtype: type of the network's products; bfloat16 is for GPUs and TPUs, and finds the same
            cells but for a few in a thousand.
        attention: kernel of the attention; cudnn is for CUDA, in bfloat16.
        overwrite: replace results that are there already, and forget what is unfinished.
        quiet: print nothing but errors and warnings.
    """
    from cellvit_jax.inference.run import Options, Task, run
    from cellvit_jax.slides.tissue import parse_roi

    options = Options(tuple(export), tissue, parse_roi(roi), tokens, binary)
    task = Task(out, model, options, head, mpp, batch_size, overwrite, quiet, dtype, attention)
    if not run(slides, task, extensions=extension, shard=shard, scheduler=scheduler):
        sys.exit(SOME_FAILED)


@app.command
def embed(
    slides: Annotated[Positional[list[Path]], arg(metavar="SLIDE [SLIDE ...]")],
    /,
    out: Path,
    model: str = zoo.DEFAULT,
    level: Literal["cells", "patches"] = "cells",
    pool: Literal["box", "mask", "cls", "mean"] | None = None,
    tile: int | None = None,
    to: tuple[Literal["parquet", "h5ad", "zarr"], ...] = ("parquet",),
    mpp: float | None = None,
    tissue: str | None = None,
    roi: str | None = None,
    batch_size: int | None = None,
    split: str | None = None,
    extension: tuple[str, ...] = (),
    shard: str | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Vectors of cells or of patches of slides and images, with their positions.

    Goes on where it was stopped, as `segment` does; vectors are float16 on the disk.

    Args:
        slides: slides, images, folders, patterns or lists, as of `segment`; or annotated data of
            any layout of docs/data.md, whose fields are embedded.
        out: folder for the results; each slide gets a folder of its own in it.
        model: a model folder or the name of a bundled model: a CellViT for cells; for patches any
            foundation encoder (UNI, Virchow, HIPT, SAM) or the encoder of a CellViT.
        level: a vector for each cell, or for each square of a grid.
        pool: of cells, mean token over the box (default) or over the pixels of the mask; of
            patches, the cls token (default; SAM: the mean of its neck's output) or the mean token.
        tile: side in pixels of patches, or of the tiles that cells are found in, at the model's
            resolution; by default that of the encoder's positions (224 for UNI), or the model's.
        to: which files to write: Parquet, or AnnData as h5ad or zarr (extra anndata).
        mpp: resolution in µm per pixel; wins over what the files say.
        tissue: where to look: otsu, none, or the path of a mask, as of `segment`.
        roi: look only into this rectangle of full-resolution pixels: x,y,width,height.
        batch_size: tiles per call of the network; by default 1 on CPU, 8 a device elsewhere.
        split: of annotated data, the part to embed, such as fold1 or train.
        extension: of folders, take only files that end so.
        shard: take only every n-th slide: i/n, i from 0 to n - 1, for job arrays.
        overwrite: replace results that are there already, and forget what is unfinished.
        quiet: print nothing but errors and warnings.
    """
    from cellvit_jax.inference.embed import EmbedOptions, EmbedTask, pooled
    from cellvit_jax.inference.run import run
    from cellvit_jax.slides.tissue import parse_roi

    options = EmbedOptions(
        tuple(to),
        tissue,
        parse_roi(roi),
        tokens=level == "cells",
        level=level,
        pool=pooled(level, pool),
        tile=tile,
    )
    task = EmbedTask(out, model, options, None, mpp, batch_size, overwrite, quiet, split=split)
    if not run(slides, task, extensions=extension, shard=shard):
        sys.exit(SOME_FAILED)


@app.command
def prompt(
    image: Annotated[Positional[Path], arg(metavar="IMAGE")],
    /,
    model: str,
    out: Path,
    point: UseAppendAction[list[str]],
    background_point: UseAppendAction[list[str]],
    box: UseAppendAction[list[str]],
    mask: Path | None = None,
    refine: Path | None = None,
    window: int | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Outline what is pointed at in an image, with SAM or SAM-Med2D.

    Args:
        image: a PNG, JPEG, TIFF or .npy file.
        model: the folder of a SAM or SAM-Med2D (see cellvit-convert).
        out: folder for the results; the image gets a folder of its own in it.
        point: x,y of a pixel on the object; can be given several times.
        background_point: x,y of a pixel that is not on the object; can be given several times.
        box: x0,y0,x1,y1 around an object; each further box is an object of its own.
        mask: a black and white image of a rough mask to improve.
        refine: a folder that `segment` wrote for this image: its cells are drawn again.
        window: with --refine, the side in pixels of what the network sees at once.
        overwrite: replace results that are there already.
        quiet: print nothing but errors.
    """
    from cellvit_jax.inference import prompting

    given = prompting.Prompts.read(point, background_point, box, mask)
    prompting.run(
        image,
        out,
        model=model,
        given=given,
        results=refine,
        window=window,
        overwrite=overwrite,
        quiet=quiet,
    )


@app.command
def export(
    run: Annotated[Positional[Path], arg(metavar="RUN")],
    /,
    to: tuple[Later, ...],
    neighbours: int | None = None,
    max_length: float | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Write more files of results that are there, from their cells.parquet.

    Args:
        run: the folder of a result, or one that holds the folders of several.
        to: which files to write beside each cells.parquet.
        neighbours: join each cell to so many nearest ones in the cell graph of graph.npz, h5ad and
            zarr; by default the graph is a Delaunay triangulation.
        max_length: longest edge of the graph in µm, 50 by default.
        overwrite: replace files that are there already.
        quiet: print nothing but errors.
    """
    from cellvit_jax.exports.results import export

    export(run, to, overwrite=overwrite, quiet=quiet, k=neighbours, max_length=max_length)


@app.command
def init(
    encoder: str,
    out: Path,
    classes: tuple[str, ...],
    tissues: tuple[str, ...] = (),
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Make a new model to be trained: a known encoder under a fresh decoder.

    Args:
        encoder: folder of a foundation encoder (see cellvit-convert), a SAM or a CellViT.
        out: the model folder to write.
        classes: names of the cell types, without the background.
        tissues: names of the tissues that a tissue head shall tell apart.
        seed: what the decoder is drawn from.
        overwrite: replace a model that is there already.
    """
    from cellvit_jax.initialise import write_model

    print(write_model(encoder, out, classes, tissues, seed=seed, overwrite=overwrite))
    print(f"wrote        {out}")


@app.command
def evaluate(
    data: Path,
    model: tuple[str, ...] = (),
    split: tuple[str, ...] = (),
    out: Path | None = None,
    tta: bool = False,
    predictions: Path | None = None,
    protocol: Literal["pannuke", "monusac", "consep"] | None = None,
    layout: str | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Measure models, or predictions that are there, on annotated data: see docs/evaluation.md.

    Args:
        data: a folder of annotated images, in any layout of docs/data.md.
        model: a model folder or the name of a bundled model; for a protocol of folds one of each.
        split: the part of the data, such as val or fold3; for folds one for every model.
        out: folder for a report in Markdown and JSON, with figures; else tables are printed only.
        tta: average the network over the eight flips and turns of each tile.
        predictions: a folder of label images, or of results of `segment`, instead of a model.
        protocol: measure as papers do: pannuke (three models), monusac or consep.
        layout: which layout the data is in, where the content leaves that open.
        batch_size: tiles per call of the network; by default 1 on CPU, 8 a device elsewhere.
        workers: processes that score while the network goes on, by default all cores but one.
        overwrite: replace a report that is there already.
        quiet: show no progress.
    """
    from cellvit_jax.evaluation.run import Options, run

    options = Options(layout, tta, batch_size, workers, quiet)
    given = model or (() if predictions else (zoo.DEFAULT,))
    text = run(
        given,
        data,
        split,
        out,
        predictions=predictions,
        protocol=protocol,
        options=options,
        overwrite=overwrite,
    )
    print(text)


@app.command
def inspect(source: Annotated[Positional[str], arg(metavar="SRC")], /) -> None:
    """Print what a checkpoint is: architecture, classes, size, and what a conversion ignores.

    Args:
        source: a model folder, the name of a bundled model, a .pth or a .safetensors file.
    """
    from cellvit_jax.inspection import inspect

    print(inspect(source))


@app.command
def fetch(
    name: Annotated[Positional[str], arg(metavar="NAME_OR_URL")],
    dst: Annotated[Positional[Path | None], arg(metavar="[DST]")] = None,
    /,
    overwrite: bool = False,
    force: bool = False,
    quiet: bool = False,
) -> None:
    """Download published weights once, verify them, and make a model folder of them.

    Args:
        name: published weights, such as cellvit-sam-h-x40, or the address of a file of weights.
        dst: the model folder to make; a name ending in .pth gets a copy of the file instead.
            Without it the file stays in the cache folder, and its path is printed.
        overwrite: replace what is at DST.
        force: download again what is in the cache folder.
        quiet: print nothing but what was made, and errors.
    """
    from cellvit_jax.fetch import run

    run(name, dst, overwrite=overwrite, force=force, quiet=quiet)


@app.command
def info() -> None:
    """Print versions, devices, bundled models and the cache folder."""
    from cellvit_jax.info import describe

    print(describe())


app.command(cli_data.app, name="data", help="Inspect, prepare and make training data.")
app.command(cli_train.train)
app.command(cli_distil.distil)
app.command(cli_pretrain.pretrain)
app.command(cli_head.app, name="head", help="Teach a network new types of cells.")
app.command(cli_probe.app, name="probe", help="Classify patches and slides by their embeddings.")
app.command(cli_compile.warmup)
app.command(cli_compile.program)


def main() -> None:
    """Run the command line; errors that were foreseen become one sentence and exit code 2."""
    if "--version" in sys.argv[1:2]:
        from cellvit_jax import __version__

        print(f"cellvit-jax {__version__}")
        return
    show_warnings("cellvit-jax")
    try:
        app.cli(
            prog="cellvit-jax",
            description="Nuclei of H&E images, segmented and typed.",
            config=(FlagCreatePairsOff,),
        )
    except CellViTError as error:
        print(f"cellvit-jax: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("cellvit-jax: stopped; start it again in the same way to go on", file=sys.stderr)
        sys.exit(130)
