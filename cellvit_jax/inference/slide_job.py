"""One slide, from a file to a folder of results: what a cohort does again and again."""

from __future__ import annotations

import dataclasses
import shutil
import time
import zlib
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow.compute as pc

from cellvit_jax import __version__
from cellvit_jax.card import ModelCard
from cellvit_jax.files import replacing_directory
from cellvit_jax.inference import results
from cellvit_jax.inference.classify import remark
from cellvit_jax.inference.journal import Journal
from cellvit_jax.inference.pipeline import CELLS, Stages, rows
from cellvit_jax.inference.plan import Plan, planned
from cellvit_jax.inference.predictor import Predictor
from cellvit_jax.inference.progress import Watch
from cellvit_jax.inference.report import Report
from cellvit_jax.slides import Slide
from cellvit_jax.slides.collection import Listed
from cellvit_jax.slides.slide import Box

UNTYPED = "class 0"  # what cells without a type are counted as
UNFINISHED = ".unfinished"  # the ending of the folder that a run goes on from


@dataclasses.dataclass(frozen=True)
class Options:
    """What the result of a slide depends on beside the slide and the model; `export` is files."""

    export: tuple[str, ...] = tuple(results.WRITERS)
    tissue: str | None = None
    roi: Box | None = None
    tokens: bool = False
    binary: bool = False

    @property
    def what(self) -> str:
        """What is counted."""
        return "cells"

    @property
    def writers(self) -> Mapping[str, Any]:
        """What writes the files."""
        return results.WRITERS

    @property
    def stages(self) -> Stages:
        """What becomes of the network's maps."""
        return CELLS

    def plan(self, slide: Slide, card: ModelCard) -> Plan:
        """What of a slide is looked at. Raises InputError."""
        return planned(slide, card, where=self.tissue, roi=self.roi)


def arguments(source: Listed, slide: Slide, options: Options) -> dict[str, Any]:
    """What a result depends on beside the model, as plain values: equal for runs that are equal."""
    values = dataclasses.asdict(options)
    if options.tissue and Path(options.tissue).is_file():
        values["mask"] = f"{zlib.crc32(Path(options.tissue).read_bytes()):08x}"
    return values | {"version": __version__, **source.evidence(slide), "mpp": slide.mpp}


def unfinished(folder: Path) -> Path:
    """Where the journal of a folder of results is until that is there."""
    return folder.with_name(folder.name + UNFINISHED)


def checksum(weights: Any) -> str:
    """Of the weights of a network, to tell models apart that have one name."""
    code = 0
    for leaf in jax.tree.leaves(weights):
        code = zlib.crc32(np.ascontiguousarray(jax.device_get(leaf)).view(np.uint8).data, code)
    return f"{code:08x}"


def segment_slide(
    slide: Slide, folder: Path, predictor: Predictor, options: Options, made_by: dict, watch: Watch
) -> Report:
    """Segments `slide` into `folder`, which appears when it is complete.

    What was done by a run that was killed is not done again. Raises CellViTError.
    """
    begun, busy = time.perf_counter(), predictor.busy
    plan = options.plan(slide, predictor.card)
    report = Report(slide.name, tiles=len(plan.places), square_mm=plan.square_mm)
    report.what = options.what
    export = _possible(plan, options.export, report)
    with Journal(unfinished(folder), made_by) as journal:
        runs = "instances" in export
        _run(plan, predictor, journal, report, watch, runs=runs, stages=options.stages)
        found = results.Found(plan, predictor.card, journal.tables)
        with replacing_directory(folder, within=unfinished(folder)) as temporary:
            with report.stage("write"):
                results.write(found, temporary, export, options.writers)
                results.write_looked_at(plan, temporary)
            _count(found, report)
            report.wall = time.perf_counter() - begun
            report.busy = predictor.busy - busy
            results.write_report(report.to_dict() | {"arguments": made_by}, temporary)
    shutil.rmtree(unfinished(folder), ignore_errors=True)
    return report


def _possible(plan: Plan, export: tuple[str, ...], report: Report) -> tuple[str, ...]:
    if "instances" not in export or results.labelled(plan):
        return export
    report.warnings.append(
        f"no instances.tif: a label image has up to {results.MOST_LABELLED:,} pixels"
    )
    return tuple(kind for kind in export if kind != "instances")


def _run(
    plan: Plan,
    predictor: Predictor,
    journal: Journal,
    report: Report,
    watch: Watch,
    *,
    runs: bool,
    stages: Stages,
) -> None:
    report.failed = list(journal.lost)
    before = len(journal.tiles) + (
        int(plan.wanted[: journal.after.number + 1].sum()) if journal.after else 0
    )
    shown = partial(watch, name=report.name, done=before, total=report.tiles)
    stream = rows(
        plan,
        predictor,
        report,
        after=journal.after,
        done=journal.tiles,
        runs=runs,
        stages=stages,
        watch=lambda seen: journal.keep(shown(seen), report.failed),
    )
    for row in stream:
        with report.stage("journal"):
            journal.add(row, report.failed)


def _count(found: results.Found, report: Report) -> None:
    if report.what == "cells":
        report.cells = _types(found)
        if untyped := report.cells.get(UNTYPED):
            report.warnings.append(remark(untyped))
    else:
        report.cells = Counter({report.what: sum(table.num_rows for table in found.tables())})
    if not report.tiles:
        report.warnings.append("no tissue: nothing was looked at (see --tissue)")
    elif not report.cells.total():
        report.warnings.append(f"no {report.what}")
    if report.failed:
        report.warnings.append(
            f"{len(report.failed)} of {report.tiles} tiles could not be read: "
            f"{report.failed[0]['reason']}"
        )


def _types(found: results.Found) -> Counter[str]:
    names = {i: name for i, (name, _) in found.card.cell_classes.items()}
    counts = Counter(dict.fromkeys(names.values(), 0))
    for table in found.tables():
        for pair in pc.value_counts(table["type"]).to_pylist():
            counts[names.get(pair["values"], f"class {pair['values']}")] += pair["counts"]
    return counts
