"""`cellvit-jax prompt`: masks for what is pointed at in an image, or its cells drawn again."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from cellvit_jax import caches, checkpoint, exports, zoo
from cellvit_jax.errors import InputError
from cellvit_jax.exports import masks
from cellvit_jax.files import atomic_open, replacing_directory
from cellvit_jax.inference.frame import Frame
from cellvit_jax.inference.prompt import Prediction, PromptPredictor, prompts, rough_mask
from cellvit_jax.inference.refine import check_cells, refine
from cellvit_jax.inference.results import WRITERS, free_folder, make_folder, write
from cellvit_jax.models import SamConfig
from cellvit_jax.slides import ImageSlide, open_image


@dataclasses.dataclass(frozen=True)
class Prompts:
    """What a user pointed at, in the image's pixels: points (N,2) with labels (N,), boxes (P,4)."""

    points: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    mask: np.ndarray | None

    @classmethod
    def read(
        cls,
        point: Sequence[str],
        background_point: Sequence[str],
        box: Sequence[str],
        mask: Path | None,
    ) -> Prompts:
        """Prompts as the command line has them: "x,y", "x0,y0,x1,y1", a black and white image."""
        on, beside = (numbers(texts, "x,y") for texts in (point, background_point))
        return cls(
            np.concatenate([on, beside]),
            np.repeat([1, 0], [len(on), len(beside)]),
            numbers(box, "x0,y0,x1,y1"),
            None if mask is None else read_mask(mask),
        )

    def any(self) -> bool:
        """Whether there is anything to answer."""
        return len(self.points) + len(self.boxes) > 0 or self.mask is not None

    def arguments(self) -> dict[str, Any]:
        """As `PromptPredictor.predict` takes them: a lone point can mean several things."""
        has_points = len(self.points) > 0
        alone = len(self.points) == 1 and not len(self.boxes) and self.mask is None
        return {
            "points": self.points if has_points else None,
            "labels": self.labels if has_points else None,
            "boxes": self.boxes if len(self.boxes) else None,
            "mask": self.mask,
            "multimask": alone,
        }


def numbers(texts: Sequence[str], form: str) -> np.ndarray:
    """The rows of numbers in texts of that form; raises `InputError` for another text."""
    count = form.count(",") + 1
    rows = []
    for text in texts:
        try:
            row = [float(part) for part in text.split(",")]
        except ValueError:
            row = []
        if len(row) != count:
            raise InputError(f"{text!r} should be {count} numbers {form}, in pixels of the image")
        rows.append(row)
    return np.reshape(rows, (-1, count)).astype(float)


def read_mask(path: Path) -> np.ndarray:
    """A bool mask (H,W): the bright half of an image. Raises `InputError` for an empty one."""
    grey = open_image(path).pixels.max(-1)
    if not grey.any():
        raise InputError(f"{path} is black: a mask is white where the object is")
    return grey > grey.max() // 2


def run(
    path: Path,
    out: Path,
    *,
    model: str,
    given: Prompts,
    results: Path | None = None,
    window: int | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Masks for prompts in the image at `path`, or its cells in the folder `results` drawn again.

    Raises `InputError` or `OutputError`, before the network is run.
    """
    options: dict[str, Any] = {"model": model, "overwrite": overwrite, "quiet": quiet}
    if results is None:
        if window is not None:
            raise InputError("--window goes with --refine alone")
        return write_masks(path, out, given=given, **options)
    if given.any():
        raise InputError("--refine takes its prompts from the results: give no other ones")
    write_refined(path, out, results=results, window=window, **options)


def write_masks(
    path: Path, out: Path, *, model: str, given: Prompts, overwrite: bool, quiet: bool
) -> None:
    """The masks of prompts, in `out/<image name>/`."""
    start = time.perf_counter()
    folder = free_folder(path, out, overwrite)
    image = open_image(path)
    check(image, given, config_at(model))
    make_folder(out)
    predictor = predictor_at(model)
    with waiting("embedding the image", quiet):
        predictor.set_image(image.pixels)
        found = predictor.predict(**given.arguments())
    best = found.scores.argmax(1)
    names = [f"mask-{i + 1}.png" for i in range(len(best))] if len(best) > 1 else ["mask.png"]
    chosen = [kinds[k] for kinds, k in zip(found.masks, best, strict=True)]
    with replacing_directory(folder) as temporary:
        for name, mask in zip(names, chosen, strict=True):
            masks.write(mask, temporary / name)
        asked = {"points": given.points, "labels": given.labels, "boxes": given.boxes}
        masks.write_picture(image.pixels, chosen, temporary / "overlay.png", **asked)
        with atomic_open(temporary / "scores.json") as file:
            described = description(image, predictor, given, found, names)
            file.write(json.dumps(described, indent=1).encode() + b"\n")
    if not quiet:
        print(summary(image, found, time.perf_counter() - start))
        print(f"{folder}/: {', '.join(names)}, overlay.png, scores.json")


def write_refined(
    path: Path,
    out: Path,
    *,
    model: str,
    results: Path,
    window: int | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """The cells in a folder of `segment`'s drawn again: the same files, in `out/<image name>/`."""
    start = time.perf_counter()
    folder = free_folder(path, out, overwrite)
    cells = exports.read_cells(results)
    image = dataclasses.replace(open_image(path), mpp=cells.mpp)
    check_cells(cells, image)
    config_at(model)
    make_folder(out)
    predictor = predictor_at(model)
    console = Console(stderr=True)
    with Progress(
        console=console, disable=quiet or not console.is_terminal, transient=True
    ) as progress:
        found = refine(image, cells, predictor, window=window, track=progress.track)
    with replacing_directory(folder) as temporary:
        write(found, temporary)
    if not quiet:
        count = int(found.cells.column("refined").sum())
        kept, seconds = len(cells) - count, time.perf_counter() - start
        print(
            f"{image.name}: {count} cells drawn again, {kept} keep their outlines, "
            f"in {seconds:.1f} s"
        )
        print(f"{folder}/: {', '.join(name for name, _ in WRITERS.values())}")


def config_at(model: str) -> SamConfig:
    """The config of the SAM of that name or folder. Raises `InputError` for another network."""
    config, _ = checkpoint.read_config(zoo.find(model))
    if not isinstance(config, SamConfig):
        raise InputError(f"{model} is a {config.architecture}: prompts need a SAM or SAM-Med2D")
    return config


def predictor_at(model: str) -> PromptPredictor:
    """The SAM of that name or folder, whose compiled programs are kept."""
    caches.keep_compiled_programs()
    return PromptPredictor(checkpoint.load(model))


def check(image: ImageSlide, given: Prompts, config: SamConfig) -> None:
    """Raises `InputError` for prompts that `predict` would refuse after it has the weights."""
    frame, values = Frame.of(*image.size, config), given.arguments()
    with_mask = given.mask is not None
    places, _ = prompts(
        frame, values["points"], values["labels"], values["boxes"], with_mask=with_mask
    )
    if given.mask is not None:
        rough_mask(frame, given.mask, len(places))


@contextlib.contextmanager
def waiting(what: str, quiet: bool) -> Iterator[None]:
    """A sign of life on a terminal."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield
    else:
        with console.status(what):
            yield


def description(
    image: ImageSlide,
    predictor: PromptPredictor,
    given: Prompts,
    found: Prediction,
    names: Sequence[str],
) -> dict[str, Any]:
    """What `scores.json` says: a mask of every prompt, and how good the network thinks it is."""
    shown = [*given.boxes.tolist()] or [None]
    points = [
        {"x": x, "y": y, "label": label}
        for (x, y), label in zip(given.points.tolist(), given.labels.tolist(), strict=True)
    ]
    best = found.scores.argmax(1)
    return {
        "image": image.name,
        "model": predictor.config.architecture,
        "masks": [
            {
                "file": name,
                "score": round(float(scores[k]), 4),
                "area": int(kinds[k].sum()),
                "box": box,
                "points": points,
                "candidates": [round(float(score), 4) for score in scores],
            }
            for name, scores, kinds, k, box in zip(
                names, found.scores, found.masks, best, shown, strict=True
            )
        ],
    }


def summary(image: ImageSlide, found: Prediction, seconds: float) -> str:
    """How many masks, how large and how good."""
    best = found.scores.argmax(1)
    areas = [int(kinds[k].sum()) for kinds, k in zip(found.masks, best, strict=True)]
    scores = ", ".join(f"{score:.2f}" for score in found.scores.max(1)[:8])
    what = "1 mask" if len(areas) == 1 else f"{len(areas)} masks"
    size = ", ".join(f"{area:,}" for area in areas[:8])
    more = ", …" if len(areas) > 8 else ""
    return f"{image.name}: {what} of {size}{more} px, scores {scores}{more}, in {seconds:.1f} s"
