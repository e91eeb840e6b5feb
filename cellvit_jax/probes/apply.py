"""What `cellvit-jax probe predict` does: a trained probe on the embeddings of other slides."""

from __future__ import annotations

import dataclasses
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from cellvit_jax import checkpoint
from cellvit_jax.errors import InputError
from cellvit_jax.files import atomic_open, replacing_directory
from cellvit_jax.heads.report import JSON
from cellvit_jax.inference.progress import watch
from cellvit_jax.models import Abmil, LinearProbe
from cellvit_jax.probes import bags, heatmap
from cellvit_jax.probes.bags import Bags, Patches
from cellvit_jax.probes.gather import made_by
from cellvit_jax.probes.predict import Predicted, predicted
from cellvit_jax.probes.tasks import PREDICTIONS, check_replaceable, write_csv
from cellvit_jax.slides import Slide, open_slide
from cellvit_jax.slides.collection import find as find_slides

PATCHES, PICTURE = "patches.parquet", "heatmap.png"


@dataclasses.dataclass(frozen=True)
class Job:
    """What is applied to what; see the command's arguments."""

    probe: Path
    embeddings: Path
    out: Path
    slides: tuple[Path, ...] = ()
    overwrite: bool = False
    quiet: bool = False


def run(job: Job) -> str:
    """Predicts all slides, one after the other, and says how many. Raises CellViTError."""
    check_replaceable(job.out, PREDICTIONS, job.overwrite)
    model, files = checkpoint.load(job.probe), bags.find(job.embeddings)
    check(job.probe, model, files)
    sources = {one.name: one for one in find_slides(job.slides)} if job.slides else {}
    classes = [c.name for c in model.card.classes[1:]]
    shown = partial(watch(job.quiet), name="slides", done=0, total=len(files))
    rows: list[list[Any]] = []
    with replacing_directory(job.out) as folder:
        for name, patches in bags.read_all(files, shown):
            if not len(patches):
                warnings.warn(f"{name} has no usable patch: nothing is said of it", stacklevel=2)
                rows.append([name, "", 0, *[""] * len(classes)])
                continue
            check_width(name, patches, model)
            found = predicted(model, bag_of(name, patches))
            (chances,) = found.chances
            rows.append([name, classes[chances.argmax()], len(patches), *map(_text, chances)])
            (folder / name).mkdir()
            slide = open_slide(sources[name].path) if name in sources else None
            write(folder / name, patches, found, classes, slide)
        write_csv(folder / PREDICTIONS, ["slide", "predicted", "patches", *classes], rows)
    said = sum(bool(row[1]) for row in rows)
    return f"predicted    {said} of {len(rows)} slides\nwrote        {job.out}"


def check(probe: Path, model: Any, files: dict[str, Path]) -> None:
    """Raises InputError for what is no probe, or one that was trained on other vectors."""
    if not isinstance(model, LinearProbe | Abmil):
        raise InputError(f"{probe} is no probe: give what `probe linear` or `probe abmil` wrote")
    try:
        before = orjson.loads((probe / JSON).read_bytes())["embedded_by"]
    except (OSError, ValueError, KeyError):
        return
    now = made_by(files)
    if before and now and before != now:
        raise InputError(
            f"this probe was trained on vectors of another network or pooling ({before}), not of "
            f"{now}: embed the slides as those it was trained on"
        )


def check_width(name: str, patches: Patches, model: LinearProbe | Abmil) -> None:
    """Raises InputError for vectors of another length than the probe was trained on."""
    wanted, width = model.config.token_dim, patches.vectors.shape[1]
    if width != wanted:
        raise InputError(
            f"this probe was trained on vectors of {wanted} numbers, those of {name} have {width}: "
            "they are of another encoder"
        )


def bag_of(name: str, patches: Patches) -> Bags:
    """All patches of a slide as one bag."""
    none = np.zeros(1, int)
    return Bags(patches.vectors, np.array([0, len(patches)]), none, none, np.array([name]))


def write(
    folder: Path, patches: Patches, found: Predicted, classes: list[str], slide: Slide | None
) -> None:
    """The table and the picture of a slide's patches. Raises OutputError, MissingExtraError."""
    columns = {"id": patches.ids, "side": patches.sides}
    columns |= dict(zip("xy", patches.centres.T, strict=True))
    if found.attention is not None:
        columns["attention"] = values = found.attention
        # 1 is what every patch has where none stands out
        values, what = values * len(values), "attention, times the number of patches"
    else:
        assert found.patches is not None
        best = found.chances[0].argmax()
        columns |= dict(zip(classes, found.patches.T, strict=True))
        values, what = found.patches[:, best], f"probability of {classes[best]}"
    with atomic_open(folder / PATCHES) as file:
        pq.write_table(pa.table(columns), file, compression="zstd")
    heatmap.write(folder / PICTURE, patches, values, what, slide)


def _text(value: float) -> str:
    return f"{value:.4f}"
