"""What `cellvit-jax head train` does, from annotated fields to a head with its report."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from cellvit_jax import __version__, caches, checkpoint
from cellvit_jax.card import ModelCard, cell_classes, cited
from cellvit_jax.data.dataset import Dataset
from cellvit_jax.data.layouts import qupath
from cellvit_jax.data.lazy import Watch
from cellvit_jax.data.open import open_splits
from cellvit_jax.errors import InputError
from cellvit_jax.files import check_free
from cellvit_jax.heads import folds
from cellvit_jax.heads import report as reports
from cellvit_jax.heads.detect import Detector
from cellvit_jax.heads.fit import Fitted, Recipe, fit
from cellvit_jax.heads.pairs import Labelled, gather, joined
from cellvit_jax.heads.scores import mean, scores
from cellvit_jax.inference.classify import probabilities
from cellvit_jax.inference.progress import watch
from cellvit_jax.models import CellClassifier, CellViT

Splits = dict[str, Dataset]


@dataclasses.dataclass(frozen=True)
class Job:
    """What a head is made from, and where it goes; see the command's arguments."""

    data: Path
    model: str
    out: Path
    annotations: Path | None = None
    mpp: float | None = None
    recipe: Recipe = Recipe()  # noqa: RUF009, frozen
    cache: Path | None = None
    uncached: bool = False
    batch_size: int | None = None
    overwrite: bool = False
    quiet: bool = False


def train(job: Job) -> str:
    """Trains and writes a head, and says what it is worth. Raises CellViTError."""
    check_free(job.out, job.overwrite)
    splits = opened(job)
    caches.keep_compiled_programs()
    model = checkpoint.load(job.model)
    with _folder(job) as folder:
        detector = Detector(model, folder, job.batch_size)
        fitted, report = trained(splits, detector, job.recipe, quiet=job.quiet)
    report |= {"model": job.model, "recipe": dataclasses.asdict(job.recipe)}
    first = next(iter(splits.values()))
    save(job.out, fitted.head, card_of(first, model, report))
    reports.write(report, job.out)
    return f"{reports.summary(report)}\nwrote        {job.out}"


@contextlib.contextmanager
def _folder(job: Job) -> Iterator[Path]:
    """Where tokens are kept."""
    if job.uncached:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    else:
        yield job.cache or caches.folder() / "tokens"


def opened(job: Job) -> Splits:
    """The splits of the annotated data. Raises InputError."""
    if job.annotations is not None:
        return {"all": qupath.read(job.data, job.annotations, (), job.mpp)}
    splits = open_splits(job.data)
    if job.mpp is None:
        return splits
    return {name: dataclasses.replace(part, mpp=job.mpp) for name, part in splits.items()}


def trained(
    splits: Splits, detector: Detector, recipe: Recipe, *, quiet: bool = True
) -> tuple[Fitted, dict[str, Any]]:
    """A head and the report of it: plain values.

    With several folds, each cell is scored by the head of the fold that had not seen it, and the
    head that is returned learns from all of them, for as many epochs as the folds' took (median).
    Raises InputError where there is too little to learn from.
    """
    first, show = next(iter(splits.values())), watch(quiet)
    parts = _parts(splits, detector, recipe.seed, show)
    for part, _ in parts:
        _check(part, first.classes)
    fits = [fit(train, val, recipe) for train, val in parts]
    seen = joined([val for _, val in parts])
    chances = [predicted(one.head, val) for one, (_, val) in zip(fits, parts, strict=True)]
    title = "validation" if len(fits) == 1 else f"cross-validation, {len(fits)} folds"
    found = {title: scores(seen.labels, np.concatenate(chances))}
    if own := own_scores(seen, detector.predictor.card, first.classes):
        found[f"{title}, the network's own types"] = own
    chosen = fits[0] if len(fits) == 1 else _of_all(seen, fits, recipe)
    if folds.TEST in splits:
        test = gather(splits[folds.TEST], folds.TEST, detector, show)
        found["test"] = scores(test.labels, predicted(chosen.head, test))
    everything = joined([*parts[0]]) if len(fits) == 1 else seen
    return chosen, _report(first, everything, chosen, found)


def _parts(
    splits: Splits, detector: Detector, seed: int, show: Watch
) -> list[tuple[Labelled, Labelled]]:
    """The cells to learn from and those to stop by, of each fold."""
    used = folds.pairs_of(list(splits))
    if not used:
        name = "train" if "train" in splits else next(iter(splits))
        return [folds.held_out(gather(splits[name], name, detector, show), seed)]
    names = sorted({name for pair in used for name in pair})
    cells = {name: gather(splits[name], name, detector, show) for name in names}
    return [(cells[train], cells[val]) for train, val in used]


def _report(first: Dataset, cells: Labelled, chosen: Fitted, found: dict) -> dict[str, Any]:
    return {
        "heading": f"Cell classifier head: {first.name}",
        "text": f"{len(cells):,} of {cells.annotated.sum():,} annotated cells were found by the "
        f"network and learned from; the head is that of epoch {chosen.epoch}.",
        "name": first.name,
        "version": __version__,
        "classes": list(first.classes),
        "annotated": cells.annotated.tolist(),
        "found": cells.counts.tolist(),
        "epoch": chosen.epoch,
        "scores": found,
        "history": chosen.history,
    }


def _of_all(cells: Labelled, fits: list[Fitted], recipe: Recipe) -> Fitted:
    """A head from the cells of all validation parts, which are all there are."""
    epochs = round(float(np.median([one.epoch for one in fits])))
    return fit(cells, None, dataclasses.replace(recipe, epochs=epochs))


def predicted(head: CellClassifier, cells: Labelled) -> np.ndarray:
    """Probabilities (N, K) of the head's classes."""
    return probabilities(head, cells.tokens)[:, 1:]


def own_scores(cells: Labelled, card: ModelCard, classes: Sequence[str]) -> dict[str, Any] | None:
    """Scores of the types that the network itself gave, if it knows all the classes by name.

    They are decisions: what needs probabilities is undefined. A cell to which it gave a type that
    is none of the classes counts as wrong, and is in no column of the confusion.
    """
    ids = {c.name.lower(): i for i, c in enumerate(card.classes)}
    if not all(name.lower() in ids for name in classes):
        return None
    wanted, count = np.array([ids[name.lower()] for name in classes]), len(classes)
    chosen = cells.own[:, None] == wanted
    with_others = np.column_stack([chosen, ~chosen.any(1)])
    found = scores(cells.labels, with_others.astype(np.float32))
    unknown = [float("nan")] * count
    f1, sizes = (found["per_class"][key][:count] for key in ("f1", "count"))
    return found | {
        "auroc": float("nan"),
        "ap": float("nan"),
        "f1": mean(f1),
        "per_class": {"auroc": unknown, "ap": unknown, "f1": f1, "count": sizes},
        "confusion": [row[:count] for row in found["confusion"][:count]],
        "calibration": {"ece": float("nan"), "bins": []},
    }


def _check(cells: Labelled, classes: Sequence[str]) -> None:
    """Raises InputError where fewer than two classes can be learned; warns of those that cannot."""
    missing = [name for name, n in zip(classes, cells.counts, strict=True) if not n]
    if len(classes) - len(missing) < 2:
        raise InputError(
            f"a head needs cells of two classes or more: of {cells.annotated.sum()} annotated "
            f"cells the network found {len(cells)}, none of them {', '.join(missing) or 'other'} "
            "(is the resolution right? see --mpp)"
        )
    if missing:
        warnings.warn(
            f"no cell of {', '.join(missing)} was found: the head will never say so", stacklevel=2
        )


def card_of(data: Dataset, model: CellViT, report: dict[str, Any]) -> ModelCard:
    """What the checkpoint of a head says of itself."""
    card: Any = model.card
    provenance = (
        f"Cell classifier head on tokens of {model.config.architecture}, trained on "
        f"{sum(report['found'])} cells of {data.name} with cellvit-jax {__version__}."
    )
    return dataclasses.replace(
        card,
        classes=cell_classes(*data.classes),
        tissues=(),
        provenance=provenance,
        license=data.license,
        citation=cited(data.citation, card.citation),
    )


def save(path: Path, head: CellClassifier, card: ModelCard) -> None:
    """Writes a head as a checkpoint. Raises OutputError."""
    checkpoint.save(path, nnx.state(head, checkpoint.WEIGHTS), head.config, card)
