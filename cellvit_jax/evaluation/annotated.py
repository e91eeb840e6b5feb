"""Predictions measured on annotated fields: of a network, or of files that are there."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial

import numpy as np

from cellvit_jax.data.dataset import Dataset, Sample
from cellvit_jax.data.lazy import Watch, unwatched
from cellvit_jax.errors import CellViTError, InputError
from cellvit_jax.evaluation.jobs import Maps, Prediction, Scoring, score
from cellvit_jax.evaluation.network import Network, segmented
from cellvit_jax.evaluation.scores import ImageScores
from cellvit_jax.evaluation.summary import Evaluation, gathered
from cellvit_jax.inference.cores import usable_cores
from cellvit_jax.inference.predictor import Predictor
from cellvit_jax.inference.queues import parallel
from cellvit_jax.models import CellViT

Finder = Callable[[Iterable[Sample], float], Iterator[tuple[Sample, Prediction | Maps]]]
COARSE = 0.375  # µm per pixel from which on fields count as 20x
AHEAD = 4  # fields in flight for every worker
NO_PIXELS = np.zeros((0, 0, 3), np.uint8)


def validate(
    network: Network | CellViT | Predictor, dataset: Dataset, *, workers: int = 0
) -> Evaluation:
    """The scores of a network on annotated fields, for a training loop: `.image_mean["bpq"]`.

    A network is compiled once for all calls with networks of one structure; with a predictor, all
    fields go the way of `segment`, in its tiles, and tissues are not told. Raises InputError.
    """
    shown: Network | Predictor = Network(network) if isinstance(network, CellViT) else network
    find = partial(segmented, predictor=shown) if isinstance(shown, Predictor) else shown
    names = {i: name for i, (name, _) in shown.card.cell_classes.items()}
    return measure(find, dataset, scoring_of(dataset, names), workers=workers)


def measure(
    find: Finder,
    dataset: Dataset,
    scoring: Scoring,
    *,
    workers: int = 0,
    watch: Watch = unwatched,
    name: str = "fields",
) -> Evaluation:
    """The scores of what `find` finds in the fields of a data set.

    Nuclei are looked for and scored by so many processes, which a program's main module must
    allow for (`if __name__ == "__main__"`), or where there are none by threads, while the network
    goes on with the next fields. Raises InputError where nuclei are not outlined.
    """
    if not dataset.outlined:
        raise InputError(f"the nuclei of {dataset.name} are points: segmentation needs outlines")
    jobs = (_job(dataset, *one) for one in find(dataset.samples, dataset.mpp))
    with _executor(workers) as pool:
        scored = parallel(partial(score, scoring=scoring), jobs, pool, AHEAD * (workers or 1))
        with closing(scored):  # type: ignore[type-var]
            shown = watch(scored, name, 0, len(dataset.samples))
            return gathered(_unbroken(shown), scoring.class_names, scoring.radius)


def scoring_of(dataset: Dataset, predicted: Mapping[int, str]) -> Scoring:
    """Classes of one name are one; where one has no namesake, types are not compared."""
    ids = {_plain(name): i for i, name in enumerate(dataset.classes, 1)}
    same = {i: ids[_plain(name)] for i, name in predicted.items() if _plain(name) in ids}
    complete = len(set(same.values())) == len(ids)
    names = dict(enumerate(dataset.classes, 1)) if complete else {}
    return Scoring(names, same, 12.0 if dataset.mpp < COARSE else 6.0)


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


def _job(
    dataset: Dataset, sample: Sample, found: Prediction | Maps
) -> tuple[Sample, Prediction | Maps, str | None]:
    known = dict(enumerate(dataset.tissues))
    tissue = None if sample.tissue is None else known.get(sample.tissue)
    return dataclasses.replace(sample, image=NO_PIXELS), found, tissue


def _executor(workers: int) -> Executor:
    if not workers:
        return ThreadPoolExecutor(usable_cores())
    # a fork of a process in which JAX runs may hang
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))


def _unbroken(scored: Iterator[ImageScores]) -> Iterator[ImageScores]:
    try:
        yield from scored
    except BrokenProcessPool as error:
        raise CellViTError("a scoring process died, maybe for lack of memory: try fewer") from error
