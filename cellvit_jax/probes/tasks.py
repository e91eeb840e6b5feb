"""What `cellvit-jax probe linear|knn|abmil` does, from embeddings and labels to a report."""

from __future__ import annotations

import csv
import dataclasses
import io
import statistics
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from cellvit_jax import __version__, checkpoint
from cellvit_jax.card import ModelCard, cell_classes
from cellvit_jax.errors import OutputError
from cellvit_jax.evaluation.statistics import interval, resampled
from cellvit_jax.files import atomic_open, check_free, replacing_directory
from cellvit_jax.heads import report as reports
from cellvit_jax.heads.scores import scores
from cellvit_jax.inference.progress import watch
from cellvit_jax.probes import abmil, knn, linear
from cellvit_jax.probes.bags import Bags, find
from cellvit_jax.probes.gather import Gathered, gather
from cellvit_jax.probes.split import Fold, folds_of

METHODS: dict[type, Any] = {linear.Recipe: linear, knn.Recipe: knn, abmil.Recipe: abmil}
NAMES = {
    linear.Recipe: "Linear probe",
    knn.Recipe: "Nearest neighbours",
    abmil.Recipe: "Attention over patches (ABMIL)",
}
PREDICTIONS = "predictions.csv"
ONE = {"slides": "slide", "patches": "patch"}
SURE = ("accuracy", "balanced_accuracy", "auroc", "ap", "f1")  # what has intervals
Recipe = linear.Recipe | knn.Recipe | abmil.Recipe


@dataclasses.dataclass(frozen=True)
class Job:
    """What a probe is made from, and where it goes; see the commands' arguments."""

    embeddings: Path
    labels: Path
    out: Path
    recipe: Recipe
    folds: int = 5
    overwrite: bool = False
    quiet: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """The final probe; and of the bags `rows` (in the order they were scored in) the
    probabilities `chances`, those of their patches, and the fold that each was scored in."""

    final: Any
    title: str
    rows: np.ndarray
    chances: np.ndarray
    patches: np.ndarray | None
    folds: np.ndarray
    chosen: list[dict[str, Any]]


def run(job: Job) -> str:
    """Trains, measures and writes a probe, and says what it is worth. Raises CellViTError."""
    check_replaceable(job.out, reports.JSON, job.overwrite)
    total = len(find(job.embeddings))
    shown = partial(watch(job.quiet), name="embeddings", done=0, total=total)
    data = gather(job.embeddings, job.labels, shown)
    for note in data.notes:
        warnings.warn(f"left aside: {note}", stacklevel=2)
    measured = measure(data, job.recipe, job.folds)
    report = reported(data, measured, job)
    with replacing_directory(job.out) as folder:
        if measured.final.model is not None:
            save(folder, measured.final.model, data, report)
        reports.write(report, folder)
        write_predictions(folder / PREDICTIONS, data, measured)
    return f"{reports.summary(report)}\nwrote        {job.out}"


def check_replaceable(out: Path, mark: str, overwrite: bool) -> None:
    """Raises OutputError for a folder that is there, unless it holds `mark` and may be replaced."""
    check_free(out, overwrite)
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / mark).exists()):
        raise OutputError(f"{out} exists and holds no {mark}: choose another name")


def measure(data: Gathered, recipe: Recipe, count: int = 5) -> Measured:
    """A probe from all that may be learned from, measured on patients that it had not seen.

    In a cross-validation the final probe learns from everybody, with the median of what the folds
    chose. Raises InputError, MissingExtraError.
    """
    bags, classes = data.bags, len(data.classes)
    title, folds = folds_of(bags.labels, bags.groups, data.splits, count, recipe.seed)
    _warn_of_the_rare(data, folds)
    learn = METHODS[type(recipe)].fit
    fits = [learn(bags.take(f.train), bags.take(f.val), classes, recipe) for f in folds]
    found = [fitted(bags.take(f.test)) for fitted, f in zip(fits, folds, strict=True)]
    final = fits[0]
    if len(folds) > 1:
        settled = dataclasses.replace(recipe, **_median([one.chosen for one in fits]))
        final = learn(bags, bags.take(np.arange(0)), classes, settled)
    patches = [one.patches for one in found if one.patches is not None]
    return Measured(
        final,
        title,
        np.concatenate([f.test for f in folds]),
        np.concatenate([one.chances for one in found]),
        np.concatenate(patches) if patches else None,
        np.repeat(np.arange(len(folds)), [len(f.test) for f in folds]),
        [one.chosen for one in fits],
    )


def _median(chosen: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: statistics.median_low([one[name] for one in chosen]) for name in chosen[0]}


def _warn_of_the_rare(data: Gathered, folds: list[Fold]) -> None:
    """Says which classes are scored in a fold that could not learn them."""
    labels = data.bags.labels
    unknown = {c for f in folds for c in set(labels[f.test]) - set(labels[f.train])}
    if unknown:
        names = ", ".join(data.classes[c] for c in sorted(unknown))
        warnings.warn(
            f"{names}: too few patients to both learn from and measure on, all of them missed in "
            "the fold that has them",
            stacklevel=3,
        )


def reported(data: Gathered, measured: Measured, job: Job) -> dict[str, Any]:
    """The report: plain values."""
    bags = data.bags.take(measured.rows)
    parts = {measured.title: scores(bags.labels, measured.chances, data.what)}
    parts[measured.title]["intervals"] = intervals(bags, measured.chances)
    if measured.patches is not None and bags.starts[-1] > len(bags):
        own = scores(bags.labels[bags.owners], measured.patches, "patches")
        parts[f"{measured.title}, single patches with the label of their slide"] = own
    people = len(np.unique(data.bags.groups))
    chosen = ", ".join(str(next(iter(one.values()))) for one in measured.chosen)
    name = NAMES[type(job.recipe)]
    return {
        "heading": f"{name}: {job.labels.stem}",
        "text": f"{len(data.bags):,} {data.what} of {people:,} patients, {len(bags.vectors):,} "
        f"patches scored. In brackets: 95 % intervals of a bootstrap over patients. Chosen "
        f"without the scored ones: {next(iter(measured.chosen[0]))} {chosen}."
        + "".join(f"\n\nLeft aside: {note}." for note in data.notes),
        "version": __version__,
        "classes": list(data.classes),
        "scores": parts,
        "recipe": dataclasses.asdict(job.recipe),
        "chosen": measured.chosen,
        "embedded_by": data.made_by,
        "left_aside": data.notes,
    }


def intervals(bags: Bags, chances: np.ndarray) -> dict[str, tuple[float, float]]:
    """95 % intervals of the figures: whole patients are drawn, with replacement."""
    people, owners = np.unique(bags.groups, return_inverse=True)
    found: dict[str, list[float]] = {name: [] for name in SURE}
    for weights in resampled(len(people)):
        drawn = np.repeat(np.arange(len(bags)), weights[owners])
        figures = scores(bags.labels[drawn], chances[drawn])
        for name in SURE:
            found[name].append(figures[name])
    return {name: interval(np.array(values)) for name, values in found.items()}


def write_predictions(path: Path, data: Gathered, measured: Measured) -> None:
    """What was said of each scored bag, as CSV. Raises OutputError."""
    bags = data.bags.take(measured.rows)
    head = [ONE[data.what], "label", "predicted", "fold"]
    rows = [
        [name, data.classes[label], data.classes[row.argmax()], fold, *map("{:.4f}".format, row)]
        for name, label, fold, row in zip(
            bags.names, bags.labels, measured.folds, measured.chances, strict=True
        )
    ]
    write_csv(path, [*head, *data.classes], rows)


def write_csv(path: Path, head: list[str], rows: list[list[Any]]) -> None:
    """A table as CSV. Raises OutputError."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    with atomic_open(path) as file:
        file.write(text.getvalue().encode())


def save(path: Path, model: nnx.Module, data: Gathered, report: dict[str, Any]) -> None:
    """Writes a probe as a checkpoint. Raises OutputError."""
    provenance = (
        f"{report['heading']}, on patch embeddings of {len(data.bags)} {data.what}, with "
        f"cellvit-jax {__version__}."
    )
    card = ModelCard(cell_classes(*data.classes), provenance=provenance)
    network: Any = model
    checkpoint.save(path, nnx.state(network, checkpoint.WEIGHTS), network.config, card)
