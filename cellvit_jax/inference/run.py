"""`cellvit-jax segment`: images to folders of results, and a line that says what was found."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from cellvit_jax import caches, checkpoint, exports
from cellvit_jax.errors import InputError, OutputError
from cellvit_jax.exports import labels, overlay
from cellvit_jax.files import replacing_directory
from cellvit_jax.inference.segment import Segmentation, predictor_of, segment_image
from cellvit_jax.slides import open_image

# name of an export -> file, and what writes it
WRITERS: dict[str, tuple[str, Callable[[Segmentation, Path], None]]] = {
    "parquet": ("cells.parquet", lambda found, path: exports.write(found.cells, path)),
    "geojson": ("cells.geojson", lambda found, path: exports.write(found.cells, path)),
    "json": ("cells.json", lambda found, path: exports.write(found.cells, path)),
    "instances": (
        "instances.tif",
        lambda found, path: labels.write(found.instances, path, mpp=found.image.mpp),
    ),
    "overlay": (
        "overlay.png",
        lambda found, path: overlay.write(found.cells, found.image.pixels, path),
    ),
}


def run(
    images: Sequence[Path],
    out: Path,
    *,
    model: str,
    mpp: float | None = None,
    export: Sequence[str] = tuple(WRITERS),
    batch_size: int | None = None,
    head: Path | None = None,
    binary: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Segment `images` with the model of that name or folder; results in `out/<image name>/`.

    `head` is the folder of a cell classifier head; it and `binary` are as in `segment`.
    A folder of results appears when it is complete. Raises `InputError` or `OutputError`, before
    the network is run where that can be known by then.
    """
    if not images:
        raise InputError("give at least one image")
    folders = result_folders(images, out, overwrite)
    if batch_size is not None and batch_size < 1:
        raise InputError(f"--batch-size must be 1 or more, not {batch_size}")
    caches.keep_compiled_programs()
    opened = open_image(images[0], mpp=mpp)
    classifier = None if head is None else checkpoint.load(head)
    predictor = predictor_of(checkpoint.load(model), batch_size, head=classifier, binary=binary)
    make_folder(out)
    for path, folder in zip(images, folders, strict=True):
        start = time.perf_counter()
        image = opened if path is images[0] else open_image(path, mpp=mpp)
        console = Console(stderr=True)
        hidden = quiet or not console.is_terminal
        with Progress(console=console, disable=hidden, transient=True) as progress:
            found = segment_image(image, predictor, progress.track, head=classifier)
        write_results(found, folder, export)
        if not quiet:
            print(summary(found, time.perf_counter() - start, folder, export))


def result_folders(images: Sequence[Path], out: Path, overwrite: bool) -> list[Path]:
    """The folder of each image's results; equal names and results already there are refused."""
    folders = [out / path.stem for path in images]
    twice = [name for name, count in Counter(folders).items() if count > 1]
    if twice:
        raise InputError(f"several images would be written to {twice[0]}: rename one of them")
    there = [folder for folder in folders if folder.exists()]
    if there and not overwrite:
        raise OutputError(f"{there[0]} is there already: give --overwrite to replace it")
    return folders


def make_folder(out: Path) -> None:
    """The output folder, so that one that cannot be written is known before the network runs."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise OutputError(f"cannot write into {out}: {error.strerror}") from error


def write_results(found: Segmentation, folder: Path, export: Sequence[str]) -> None:
    """The wanted files of one image, in a folder that appears when all of them are complete."""
    with replacing_directory(folder) as temporary:
        for kind in export:
            name, write = WRITERS[kind]
            write(found, temporary / name)


def summary(found: Segmentation, seconds: float, folder: Path, export: Sequence[str]) -> str:
    """Cells per class, seconds, and where the files are."""
    counts = Counter(found.cells.column("type").tolist())
    classes = ", ".join(
        f"{counts[i]} {name.lower()}" for i, (name, _) in found.cells.classes.items()
    )
    files = ", ".join(WRITERS[kind][0] for kind in export)
    total = f"{found.image.name}: {len(found.cells)} cells ({classes}) in {seconds:.1f} s"
    return f"{total}\n{folder}{'/' if files else ''}: {files}"
