"""Pictures of an evaluation: bars for the classes, and the fields that went worst."""

from __future__ import annotations

import importlib.util
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy import ndimage

from cellvit_jax.card import COLORS
from cellvit_jax.data.dataset import Sample
from cellvit_jax.errors import MissingExtraError
from cellvit_jax.evaluation.jobs import Prediction, types_of
from cellvit_jax.evaluation.summary import Evaluation
from cellvit_jax.exports import contact_sheet, legend
from cellvit_jax.files import atomic_open

BARS = {"pq": "PQ", "dq": "DQ", "sq": "SQ", "f1": "F1"}
WORST = 6
NUCLEI = "nuclei"
Shown = tuple[str, Sample, Prediction]  # a caption before them


def check_installed() -> None:
    """Raises MissingExtraError without Matplotlib, before any work is done."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "evaluate")


def write_bars(evaluation: Evaluation, path: Path) -> None:
    """Pooled figures of every class, or of all nuclei where there are none, with intervals."""
    with atomic_open(path) as file:
        _bars(evaluation).savefig(file, format="png", dpi=144)


def _bars(evaluation: Evaluation) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = _groups(evaluation)
    figure = Figure(figsize=(1.8 + 1.5 * len(groups), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for k, (key, label) in enumerate(BARS.items()):
        values = np.array([figures[key] for _, figures, _ in groups])
        low, high = np.array([intervals[key] for _, _, intervals in groups]).T
        error = np.nan_to_num(np.maximum([values - low, high - values], 0))
        places = np.arange(len(groups)) + (k - 1.5) * 0.2
        axes.bar(places, np.nan_to_num(values), 0.18, yerr=error, label=label, capsize=2)
    axes.set_xticks(range(len(groups)), [name for name, _, _ in groups])
    axes.set(ylim=(0, 1), ylabel="pooled over all images, 95 % interval")
    axes.legend(ncols=len(BARS), loc="upper center", bbox_to_anchor=(0.5, 1.15), frameon=False)
    return figure


def _groups(evaluation: Evaluation) -> list[tuple[str, Any, Any]]:
    if evaluation.typed:
        parts = evaluation.figures["classes"], evaluation.intervals["classes"]
        return [(name, part["pooled"], parts[1][name]["pooled"]) for name, part in parts[0].items()]
    trees = evaluation.figures["pooled"], evaluation.intervals["pooled"]
    figures, intervals = (tree | {"pq": tree["bpq"]} for tree in trees)
    return [(NUCLEI, figures, intervals)]


def worst(evaluation: Evaluation, count: int = WORST) -> list[int]:
    """The images of least bPQ, by index, worst first; those without any nucleus are left out."""
    scores = [image.overall.quality["bpq"] for image in evaluation.images]
    defined = [i for i, score in enumerate(scores) if not math.isnan(score)]
    return sorted(defined, key=lambda i: scores[i])[:count]


def write_worst(shown: Sequence[Shown], class_names: dict[int, str], path: Path) -> None:
    """Captions, fields and predictions, truth to the left: outlines in their classes' colours.

    Without names of classes all outlines are of one colour.
    """
    panels, counts = [], Counter[int]()
    for caption, sample, found in shown:
        truth: dict[int, int] = {}
        if class_names and sample.types is not None:
            truth = types_of(sample.instances, sample.types)
        predicted = dict(found.types) if class_names else {}
        counts.update(truth.values())
        panels.append(_panel(f"{caption} · annotated", sample.image, sample.instances, truth))
        panels.append(_panel("predicted", sample.image, found.instances, predicted))
    entries = [legend.Entry(name, _colour(i), counts[i]) for i, name in class_names.items()]
    contact_sheet.write(panels, entries, path)


def _panel(
    caption: str, image: np.ndarray, instances: np.ndarray, types: dict[int, int]
) -> contact_sheet.Panel:
    outlines: list[np.ndarray] = []
    colours = []
    labels = instances.astype(np.int64)
    for i, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        mask, offset = (labels[box] == i).astype(np.uint8), (box[1].start, box[0].start)
        found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=offset)
        outlines += [contour[:, 0] for contour in found]
        colours += [_colour(types.get(i, 0))] * len(found)
    return contact_sheet.Panel(caption, image, outlines, colours)


def _colour(kind: int) -> tuple[int, int, int]:
    return COLORS[kind % len(COLORS)]
