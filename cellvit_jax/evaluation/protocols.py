"""How published figures were measured: which model is shown which part of the data."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from cellvit_jax.errors import InputError
from cellvit_jax.evaluation.report import LABELS, MEANS, table
from cellvit_jax.evaluation.summary import Evaluation

Spread = tuple[float, float]  # mean and standard deviation over models


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The split that each model in turn is tested on, and the figures that papers report."""

    splits: tuple[str, ...]
    figures: tuple[str, ...]
    about: str


PROTOCOLS = {
    # Gamper et al., arXiv:2003.10778: trained on folds 1, 2, 3, validated on 2, 1, 2
    "pannuke": Protocol(
        ("fold3", "fold3", "fold1"),
        ("mpq", "bpq", "precision", "recall", "f1", "dice", "jaccard", "tissue_accuracy"),
        "PanNuke's three splits: models trained on fold 1, 2, 3 are tested on fold 3, 3, 1. Papers "
        "print the tissue mean.",
    ),
    "monusac": Protocol(("test",), ("bpq", "mpq"), "MoNuSAC's test part: PQ of all nuclei is bPQ."),
    "consep": Protocol(
        ("test",),
        ("mdq", "mpq", "dq", "bpq"),
        "CoNSeP's test part, its seven types merged to four: mDQ and mPQ are means over these, DQ "
        "and bPQ are of all nuclei.",
    ),
}


def find(name: str) -> Protocol:
    """The protocol of that name. Raises InputError."""
    if name not in PROTOCOLS:
        raise InputError(f"there is no protocol {name!r}: give one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def part(splits: Sequence[str], wanted: str) -> str:
    """The one split that is named so, or like it: "test" is also "testing data". Or the only one.

    Raises InputError where none or several could be meant.
    """
    if wanted in splits or len(splits) == 1:
        return wanted if wanted in splits else splits[0]
    alike = [split for split in splits if wanted in split]
    if len(alike) != 1:
        raise InputError(f"no split is clearly {wanted!r}: name one of {', '.join(splits)}")
    return alike[0]


def over_models(evaluations: Sequence[Evaluation], figures: Sequence[str]) -> dict[str, Any]:
    """(mean, sample standard deviation) over models of image and tissue means, and of classes."""
    means = {
        mean: {key: _spread([e.figures[mean][key] for e in evaluations]) for key in figures}
        for mean in ("image_mean", "tissue_mean")
        if all(e.figures[mean] for e in evaluations)
    }
    return means | {"classes": _classes(evaluations)}


def to_markdown(summary: Mapping[str, Any], protocol: Protocol) -> str:
    """The figures of `over_models`, as mean ± standard deviation."""
    means = [mean for mean in MEANS if mean in summary]
    rows = [
        [LABELS[key], *(_text(summary[mean][key]) for mean in means)] for key in protocol.figures
    ]
    parts = [protocol.about, table(["all nuclei", *(MEANS[mean] for mean in means)], rows)]
    if classes := summary["classes"]:
        rows = [[name, *map(_text, figures.values())] for name, figures in classes.items()]
        parts.append(table(["class", "PQ, image mean", "DQ, image mean", "F1, pooled"], rows))
    return "\n\n".join(parts) + "\n"


def _classes(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, Spread]]:
    found = [e.figures["classes"] for e in evaluations]
    return {
        name: {
            "pq": _spread([classes[name]["image_mean"]["pq"] for classes in found]),
            "dq": _spread([classes[name]["image_mean"]["dq"] for classes in found]),
            "f1": _spread([classes[name]["pooled"]["f1"] for classes in found]),
        }
        for name in found[0]
        if all(name in classes for classes in found)
    }


def _spread(values: Sequence[float]) -> Spread:
    known = len(values) > 1 and not any(map(math.isnan, values))
    return sum(values) / len(values), statistics.stdev(values) if known else math.nan


def _text(spread: Spread) -> str:
    mean, sd = spread
    if math.isnan(mean):
        return "–"
    return f"{mean:.4f}" if math.isnan(sd) else f"{mean:.4f} ± {sd:.4f}"
