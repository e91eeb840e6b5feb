"""The scores of a set of images: every figure, each with its bootstrap interval."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from cellvit_jax.errors import InputError
from cellvit_jax.evaluation import statistics
from cellvit_jax.evaluation.scores import Case, Figures, ImageScores, Scores, score_image
from cellvit_jax.evaluation.statistics import Tree


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The scores of a set of images; `class_names` by id, `radius` in pixels."""

    images: tuple[ImageScores, ...]
    class_names: dict[int, str]
    radius: float

    @functools.cached_property
    def figures(self) -> Tree:
        """All figures, see `statistics.figures`; nan where undefined."""
        once = np.ones((1, len(self.images)), int)
        found = statistics.figures(self.images, self.class_names, once)
        return statistics.each(found, lambda values: float(values[0]))

    @functools.cached_property
    def intervals(self) -> Tree:
        """(low, high) of every figure: 95 % of 1000 bootstrap samples of the images, seed 0."""
        weights = statistics.resampled(len(self.images))
        found = statistics.figures(self.images, self.class_names, weights)
        return statistics.each(found, statistics.interval)

    @property
    def image_mean(self) -> Figures:
        """`bpq`, `mpq`, `dq`, …, `f1`: each over the images where it is defined."""
        return self.figures["image_mean"]

    @property
    def tissue_mean(self) -> Figures:
        """The same as the mean over tissues of the means over their images; empty without any."""
        return self.figures["tissue_mean"]

    @property
    def pooled(self) -> Figures:
        """Figures of counts summed over all images, `mpq_plus` among them."""
        return self.figures["pooled"]

    @property
    def typed(self) -> bool:
        """Whether any annotation has types."""
        return any(image.classes for image in self.images)

    @property
    def nuclei(self) -> int:
        """How many nuclei the annotations hold."""
        return sum(image.overall.nuclei for image in self.images)

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
        """Everything in plain values: figures, their intervals, and those of every image."""
        return {
            "images": len(self.images),
            "nuclei": self.nuclei,
            "nuclei_per_class": self.annotated if self.typed else {},
            "radius_px": self.radius,
            "figures": self.figures,
            "intervals": self.intervals,
            "bootstrap": {
                "samples": statistics.SAMPLES,
                "seed": statistics.SEED,
                "level": statistics.LEVEL,
            },
            "per_image": [self._summary_of(image) for image in self.images],
        }

    def _summary_of(self, image: ImageScores) -> dict[str, Any]:
        return {
            "name": image.name,
            "tissue": image.tissue,
            "nuclei": image.overall.nuclei,
            **image.overall.figures,
            "classes": {
                self.class_names[c]: {"nuclei": scores.nuclei, **scores.figures}
                for c, scores in image.classes.items()
            },
        }


def evaluate(
    cases: Iterable[Case], class_names: Mapping[int, str], radius: float = 12.0
) -> Evaluation:
    """Score every case; `class_names` are the classes to report, by id, without background.

    `radius` is the largest distance, in pixels of the maps, at which centroids pair: 12 at 40x, 6
    at 20x. Cases may be generated one by one: only their scores are kept. Raises InputError where
    the maps of a case do not fit each other, or where there is no case.
    """
    return gathered(
        (score_image(case, list(class_names), radius) for case in cases), class_names, radius
    )


def gathered(
    images: Iterable[ImageScores], class_names: Mapping[int, str], radius: float
) -> Evaluation:
    """The evaluation of scored images. Raises InputError where there is none."""
    scored = tuple(images)
    if not scored:
        raise InputError("there is no image to evaluate")
    return Evaluation(scored, dict(class_names), radius)
