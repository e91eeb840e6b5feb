"""Scores of predicted nuclei against annotated ones, image by image and over a set of images.

bPQ is the panoptic quality of all nuclei; mPQ the mean over classes of the panoptic quality of each
class, where a class that is absent from both truth and prediction of an image does not count.
Means are over images; pooled figures come from counts summed over images.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from cellvit_jax import metrics
from cellvit_jax.errors import InputError
from cellvit_jax.metrics import Detection

Figures = dict[str, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One image: its annotation and what was predicted for it.

    `true` and `pred` are (H, W) instance maps, 0 = background; `true_types` is an (H, W) map of
    class ids, or None where the annotation has no types; `pred_types` gives the class of each
    predicted instance by its id, and those left out have none.
    """

    name: str
    true: np.ndarray
    pred: np.ndarray
    true_types: np.ndarray | None = None
    pred_types: Mapping[int, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Scores:
    """What the nuclei of one image, or those of one class in it, come to."""

    nuclei: int  # annotated ones
    quality: Figures  # bpq and mpq of an image, pq of a class
    detection: Detection

    @property
    def figures(self) -> Figures:
        """The qualities, then `precision`, `recall` and `f1`; nan where undefined."""
        return self.quality | _rates(self.detection)


@dataclasses.dataclass(frozen=True)
class ImageScores:
    """The scores of one image; `classes` (by id) is empty where the annotation has no types."""

    name: str
    overall: Scores
    classes: dict[int, Scores]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The scores of a set of images."""

    images: tuple[ImageScores, ...]
    class_names: dict[int, str]
    radius: float

    @property
    def mean(self) -> Figures:
        """`bpq`, `mpq`, `precision`, `recall`, `f1`: each over the images where it is defined."""
        return _mean([image.overall for image in self.images])

    @property
    def pooled(self) -> Figures:
        """`precision`, `recall` and `f1` of the nuclei of all images taken together."""
        return _pooled([image.overall for image in self.images])

    @property
    def typed(self) -> bool:
        """Whether any annotation has types."""
        return any(image.classes for image in self.images)

    @property
    def annotated(self) -> dict[str, int]:
        """How many nuclei of each class the annotations hold, by name; 0 is a class without any."""
        return {
            name: sum(scores.nuclei for scores in self.of_class(c))
            for c, name in self.class_names.items()
        }

    def of_class(self, class_id: int) -> list[Scores]:
        """The scores of one class in every image that has types."""
        return [image.classes[class_id] for image in self.images if image.classes]

    def summary(self) -> dict[str, Any]:
        """Everything in plain values: overall, by class, by image."""
        names = self.class_names
        return {
            "radius_px": self.radius,
            "mean": self.mean,
            "pooled": self.pooled,
            "classes": {name: self._summary_of_class(c) for c, name in names.items() if self.typed},
            "images": [
                {
                    "name": image.name,
                    "nuclei": image.overall.nuclei,
                    **image.overall.figures,
                    "classes": {
                        names[c]: {"nuclei": scores.nuclei, **scores.figures}
                        for c, scores in image.classes.items()
                    },
                }
                for image in self.images
            ],
        }

    def _summary_of_class(self, class_id: int) -> dict[str, Any]:
        scores = self.of_class(class_id)
        nuclei = self.annotated[self.class_names[class_id]]
        return {"nuclei": nuclei, "mean": _mean(scores), "pooled": _pooled(scores)}

    def to_json(self) -> str:
        """`summary` as JSON, with null for what is undefined."""
        return orjson.dumps(self.summary(), option=orjson.OPT_INDENT_2).decode()

    def to_markdown(self) -> str:
        """Two tables, of images and of classes, and what the figures mean."""
        parts = [self._image_table()]
        if self.typed:
            parts += [self._class_table(), self._occurrence()]
        parts.append(
            f"Detection pairs centroids up to {self.radius:g} px apart. Means are over images, "
            "pooled figures over all nuclei together; mPQ averages the classes present in an image."
        )
        return "\n\n".join(parts) + "\n"

    def _image_table(self) -> str:
        columns = ("bpq", "mpq", "precision", "recall", "f1")
        nuclei = sum(image.overall.nuclei for image in self.images)
        rows = [(image.name, image.overall.nuclei, image.overall.figures) for image in self.images]
        rows += [("**mean**", nuclei, self.mean), ("**pooled**", nuclei, self.pooled)]
        return _table(
            ["image", "nuclei", "bPQ", "mPQ", "precision", "recall", "F1"],
            [
                [name, n, *(figures.get(key, math.nan) for key in columns)]
                for name, n, figures in rows
            ],
        )

    def _class_table(self) -> str:
        rows = []
        for c, name in self.class_names.items():
            mean, pooled = _mean(self.of_class(c)), _pooled(self.of_class(c))
            rows.append([name, self.annotated[name], *mean.values(), pooled["f1"]])
        return _table(
            ["class", "nuclei", "PQ", "precision", "recall", "F1", "pooled F1"],
            rows,
        )

    def _occurrence(self) -> str:
        absent = [name for name, count in self.annotated.items() if not count]
        return (
            f"Classes without an annotated nucleus in these images: {', '.join(absent) or 'none'}."
        )


def evaluate(
    cases: Iterable[Case], class_names: Mapping[int, str], radius: float = 12.0
) -> Evaluation:
    """Score every case; `class_names` are the classes to report, by id, without background.

    `radius` is the largest distance, in pixels of the maps, at which centroids pair: 12 at 40x, 6
    at 20x. Cases may be generated one by one: only their scores are kept. Raises InputError where
    the maps of a case do not fit each other, or where there is no case.
    """
    images = tuple(score_image(case, list(class_names), radius) for case in cases)
    if not images:
        raise InputError("there is no image to evaluate")
    return Evaluation(images, dict(class_names), radius)


def score_image(case: Case, classes: Sequence[int], radius: float = 12.0) -> ImageScores:
    """The scores of one case for the given class ids: see `evaluate`."""
    points = metrics.centroids(case.true), metrics.centroids(case.pred)
    by_class = {}
    if case.true_types is not None:
        true_types = metrics.instance_types(case.true, case.true_types)
        by_class = _score_classes(case, true_types, points, classes, radius)
    quality = {
        "bpq": metrics.panoptic_quality(case.true, case.pred)["pq"],
        "mpq": _nanmean(scores.quality["pq"] for scores in by_class.values()),
    }
    overall = Scores(len(points[0]), quality, metrics.detection(*points, radius))
    return ImageScores(case.name, overall, by_class)


def _score_classes(
    case: Case,
    true_types: np.ndarray,
    points: tuple[np.ndarray, np.ndarray],
    classes: Sequence[int],
    radius: float,
) -> dict[int, Scores]:
    pred_ids = np.unique(case.pred[case.pred > 0])
    pred_types = np.array([case.pred_types.get(int(i), 0) for i in pred_ids], np.int64)
    quality = metrics.panoptic_quality_per_class(
        case.true, true_types, case.pred, pred_types, classes
    )
    found = metrics.typed_detection(points[0], true_types, points[1], pred_types, radius, classes)
    return {
        c: Scores(int(np.sum(true_types == c)), {"pq": quality[c]["pq"]}, found[c]) for c in classes
    }


def _rates(detection: Detection) -> Figures:
    return {key: getattr(detection, key) for key in ("precision", "recall", "f1")}


def _mean(scores: Sequence[Scores]) -> Figures:
    figures = [s.figures for s in scores]
    return {key: _nanmean(f[key] for f in figures) for key in figures[0]}


def _pooled(scores: Sequence[Scores]) -> Figures:
    return _rates(sum((s.detection for s in scores), Detection()))


def _nanmean(values: Iterable[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *([_cell(v) for v in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: str | int | float) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3f}"
    return str(value)
