"""What `cellvit-jax evaluate` does, from opening to the last file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from cellvit_jax import __version__, caches, checkpoint
from cellvit_jax.data.dataset import Dataset
from cellvit_jax.data.open import open_dataset, open_splits
from cellvit_jax.errors import InputError
from cellvit_jax.evaluation import figures, protocols, report
from cellvit_jax.evaluation.annotated import Finder, measure, scoring_of
from cellvit_jax.evaluation.jobs import Prediction, Scoring, resolve
from cellvit_jax.evaluation.network import Network
from cellvit_jax.evaluation.predictions import Stored
from cellvit_jax.evaluation.protocols import PROTOCOLS
from cellvit_jax.evaluation.summary import Evaluation
from cellvit_jax.files import check_free, replacing_directory
from cellvit_jax.inference.cores import usable_cores
from cellvit_jax.inference.progress import watch

REPORT, VALUES, BARS, WORST = "report.md", "report.json", "classes.png", "worst.png"


@dataclasses.dataclass(frozen=True)
class Options:
    """What all evaluations of a command share.

    `workers` are scoring processes, 0 is threads, None one for every core but one.
    """

    layout: str | None = None
    tta: bool = False
    batch_size: int | None = None
    workers: int | None = None
    quiet: bool = False
    pictures: bool = False  # of the worst fields


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """An evaluation under its title, and the fields that went worst if they are wanted.

    It does not hold the network, so that several are measured in the memory of one.
    """

    title: str
    evaluation: Evaluation
    note: str = ""
    worst: tuple[figures.Shown, ...] = ()

    def to_markdown(self) -> str:
        """Its tables under its title."""
        note = f"{self.note}\n\n" if self.note else ""
        return f"## {self.title}\n\n{note}{report.to_markdown(self.evaluation)}"


def run(
    models: Sequence[str],
    data: Path,
    splits: Sequence[str] = (),
    out: Path | None = None,
    *,
    predictions: Path | None = None,
    protocol: str | None = None,
    options: Options | None = None,
    overwrite: bool = False,
) -> str:
    """Measures models, or predictions that are there, writes a report, and returns its text.

    With a `protocol` every model is tested on the split that it says; `splits` win over those.
    Raises InputError, OutputError, MissingExtraError (for the report's figures) before any work.
    """
    options = dataclasses.replace(options or Options(), pictures=out is not None)
    if predictions and (models or protocol):
        raise InputError("predictions that are there need no model and no protocol: choose one")
    if out:
        figures.check_installed()
        check_free(out, overwrite)
    caches.keep_compiled_programs()
    if predictions:
        dataset = open_dataset(data, splits[0] if splits else None, options.layout)
        measured = [_of_predictions(predictions, dataset, options)]
    else:
        pairs = _pairs(models, data, splits, protocol, options)
        measured = [_of_model(model, split, data, options) for model, split in pairs]
    return _finish(measured, protocol, out)


def _pairs(
    models: Sequence[str],
    data: Path,
    splits: Sequence[str],
    protocol: str | None,
    options: Options,
) -> list[tuple[str, str | None]]:
    """Each model with its split; without a protocol there is one split for all, or none named."""
    wanted: list[str | None] = [*splits] or [None]
    if protocol:
        parts = list(open_splits(data, options.layout))
        given = splits or protocols.find(protocol).splits
        wanted = [protocols.part(parts, split.lower()) for split in given]
    if len(wanted) == 1:
        wanted = wanted * len(models)
    if len(wanted) != len(models):
        raise InputError(
            f"{len(wanted)} splits need as many models, one trained for each, not {len(models)}"
        )
    return list(zip(models, wanted, strict=True))


def _of_model(model: str, split: str | None, data: Path, options: Options) -> Measured:
    dataset = open_dataset(data, split, options.layout)
    network = Network(checkpoint.load(model), batch_size=options.batch_size, tta=options.tta)
    views = ", mean of eight views" if options.tta else ""
    title = f"{model} on {dataset.name}{f' {split}' if split else ''}{views}"
    return _measured(title, network, network.class_names, dataset, options)


def _of_predictions(folder: Path, dataset: Dataset, options: Options) -> Measured:
    stored = Stored(folder)
    own = dict(enumerate(dataset.classes, 1)) if stored.typed else {}
    title = f"{folder} on {dataset.name}"
    return _measured(title, stored, stored.class_names or own, dataset, options)


def _measured(
    title: str, find: Finder, predicted: dict[int, str], dataset: Dataset, options: Options
) -> Measured:
    scoring = scoring_of(dataset, predicted)
    shown = watch(options.quiet)
    workers = options.workers
    if workers is None:
        workers = max(1, min(usable_cores() - 1, len(dataset.samples)))
    evaluation = measure(find, dataset, scoring, workers=workers, watch=shown, name=title)
    worst = _worst(evaluation, find, dataset, scoring) if options.pictures else ()
    return Measured(title, evaluation, _note(dataset, predicted, scoring), tuple(worst))


def _note(dataset: Dataset, predicted: dict[int, str], scoring: Scoring) -> str:
    if not dataset.classes or scoring.class_names:
        return ""
    names = ", ".join(predicted.values()) or "none"
    return (
        f"Types are not compared: the annotation's classes are {', '.join(dataset.classes)}, the "
        f"predicted ones {names}."
    )


def _finish(measured: Sequence[Measured], protocol: str | None, out: Path | None) -> str:
    parts = [one.to_markdown() for one in measured]
    summary = {}
    if protocol:
        found = PROTOCOLS[protocol]
        summary = protocols.over_models([one.evaluation for one in measured], found.figures)
        parts.insert(0, f"# {protocol}\n\n{protocols.to_markdown(summary, found)}")
    if out:
        with replacing_directory(out) as folder:
            for i, one in enumerate(measured):
                parts[i - len(measured)] += _pictures(
                    one, folder, f"{i + 1}-" * (len(measured) > 1)
                )
            _write(folder, parts, measured, summary, protocol)
    return "\n".join(parts)


def _write(
    folder: Path,
    parts: Sequence[str],
    measured: Sequence[Measured],
    summary: dict[str, Any],
    protocol: str | None,
) -> None:
    values = {
        "version": __version__,
        "protocol": protocol,
        "over_models": summary,
        "evaluations": [{"title": m.title, **m.evaluation.summary()} for m in measured],
    }
    (folder / REPORT).write_text("\n".join(parts), "utf-8")
    (folder / VALUES).write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2))


def _pictures(measured: Measured, folder: Path, prefix: str) -> str:
    """Writes the figures and returns the lines that show them."""
    bars, worst = f"{prefix}{BARS}", f"{prefix}{WORST}"
    figures.write_bars(measured.evaluation, folder / bars)
    links = [f"![Figures of the classes]({bars})"]
    if measured.worst:
        figures.write_worst(measured.worst, measured.evaluation.class_names, folder / worst)
        links.append(f"![The worst images]({worst})")
    return "\n" + "\n\n".join(links) + "\n"


def _worst(
    evaluation: Evaluation, find: Finder, dataset: Dataset, scoring: Scoring
) -> Iterator[figures.Shown]:
    """The fields that went worst, shown to the network once more: cheaper than to keep them all."""
    for i in figures.worst(evaluation):
        ((sample, found),) = find([dataset.samples[i]], dataset.mpp)
        prediction = resolve(found)
        types = scoring.translated(prediction.types)
        caption = f"{sample.name} · bPQ {evaluation.images[i].overall.quality['bpq']:.2f}"
        yield caption, sample, Prediction(prediction.instances, types)
