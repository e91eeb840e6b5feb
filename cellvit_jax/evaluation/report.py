"""An evaluation as text: Markdown for people, JSON for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import orjson

from cellvit_jax.evaluation import statistics
from cellvit_jax.evaluation.summary import Evaluation

LABELS = {
    "bpq": "bPQ",
    "mpq": "mPQ",
    "mpq_plus": "mPQ+",
    "dq": "DQ",
    "mdq": "mDQ",
    "sq": "SQ",
    "pq": "PQ",
    "aji": "AJI",
    "aji_plus": "AJI+",
    "dice": "Dice",
    "jaccard": "Jaccard",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "tissue_accuracy": "tissue accuracy",
}
MEANS = {"image_mean": "image mean", "tissue_mean": "tissue mean", "pooled": "pooled"}
OF_IMAGE = ("bpq", "mpq", "aji", "dice", "precision", "recall", "f1")
OF_CLASS = ("pq", "dq", "sq", "precision", "recall", "f1")
MANY = 50  # images in a table


def to_json(evaluation: Evaluation) -> str:
    """`Evaluation.summary` as JSON, with null for what is undefined."""
    return orjson.dumps(evaluation.summary(), option=orjson.OPT_INDENT_2).decode()


def to_markdown(evaluation: Evaluation) -> str:
    """Tables of all nuclei, classes, tissues and images, and what the figures mean."""
    parts = [_overall(evaluation)]
    if evaluation.typed:
        parts += [_classes(evaluation), _absent(evaluation)]
    if evaluation.figures["tissues"]:
        parts.append(_tissues(evaluation))
    if len(evaluation.images) <= MANY:
        parts.append(_images(evaluation))
    return "\n\n".join([*parts, _notes(evaluation)]) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; floats have three digits."""
    ruler = ["---", *["---:"] * (len(head) - 1)]
    lines = [head, ruler, *([cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: Any) -> str:
    """A value in a table; – for what is undefined."""
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3f}"
    return str(value).replace("|", "\\|")


def _overall(evaluation: Evaluation) -> str:
    means = [mean for mean in MEANS if evaluation.figures[mean]]
    rows = [[label, *(_with_interval(evaluation, m, key) for m in means)] for key, label in _rows()]
    shown = [row for row in rows if any(value != "–" for value in row[1:])]
    return table(["all nuclei", *(MEANS[mean] for mean in means)], shown)


def _rows() -> list[tuple[str, str]]:
    return [(key, label) for key, label in LABELS.items() if key != "pq"]


def _with_interval(evaluation: Evaluation, mean: str, key: str) -> str:
    value = evaluation.figures[mean].get(key, math.nan)
    if math.isnan(value):
        return cell(value)
    low, high = evaluation.intervals[mean][key]
    return f"{cell(value)} [{cell(low)}, {cell(high)}]"


def _classes(evaluation: Evaluation) -> str:
    rows: list[list[Any]] = []
    for name, part in evaluation.figures["classes"].items():
        mean, pooled = part["image_mean"], part["pooled"]
        row = [name, evaluation.annotated[name], *(mean[key] for key in OF_CLASS)]
        rows.append([*row, part["tissue_mean"].get("pq", math.nan), pooled["pq"], pooled["f1"]])
    head = ["class", "nuclei", *(LABELS[key] for key in OF_CLASS)]
    return table([*head, "tissue mean PQ", "pooled PQ", "pooled F1"], rows)


def _absent(evaluation: Evaluation) -> str:
    absent = [name for name, count in evaluation.annotated.items() if not count]
    return f"Classes without an annotated nucleus in these images: {', '.join(absent) or 'none'}."


def _tissues(evaluation: Evaluation) -> str:
    rows = []
    for tissue, figures in evaluation.figures["tissues"].items():
        images = [image for image in evaluation.images if image.tissue == tissue]
        nuclei = sum(image.overall.nuclei for image in images)
        rows.append([tissue, len(images), nuclei, *(figures[key] for key in OF_IMAGE)])
    return table(["tissue", "images", "nuclei", *(LABELS[key] for key in OF_IMAGE)], rows)


def _images(evaluation: Evaluation) -> str:
    rows = [
        [image.name, image.overall.nuclei, *(image.overall.figures[key] for key in OF_IMAGE)]
        for image in evaluation.images
    ]
    mean = [evaluation.image_mean[key] for key in OF_IMAGE]
    rows.append(["**image mean**", evaluation.nuclei, *mean])
    return table(["image", "nuclei", *(LABELS[key] for key in OF_IMAGE)], rows)


def _notes(evaluation: Evaluation) -> str:
    return (
        f"Detection pairs centroids up to {evaluation.radius:g} px apart. An image mean is over "
        "the images in which a figure is defined, a tissue mean over the means of the tissues' "
        "images; pooled figures come from counts summed over all images. mPQ and mDQ average the "
        "classes present in an image, mPQ+ the pooled PQ of the classes. In brackets: "
        f"{statistics.LEVEL:.0%} intervals of {statistics.SAMPLES} bootstrap samples of the "
        "images. docs/evaluation.md says more."
    )
