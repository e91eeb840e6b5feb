"""A model measured on annotated fields."""

from __future__ import annotations

from collections.abc import Iterable

from cellvit_jax.data.dataset import Sample
from cellvit_jax.evaluation.scores import Case
from cellvit_jax.evaluation.summary import Evaluation, evaluate
from cellvit_jax.inference.predictor import Predictor
from cellvit_jax.inference.segment import Segmentation, segment_image
from cellvit_jax.slides import ImageSlide


def evaluate_model(samples: Iterable[Sample], predictor: Predictor) -> Evaluation:
    """Scores of a model on fields at its own resolution; see `evaluation.summary`."""
    names = {i: name for i, (name, _) in predictor.card.cell_classes.items()}
    return evaluate(
        [compare(sample, segment_sample(sample, predictor)) for sample in samples], names
    )


def segment_sample(sample: Sample, predictor: Predictor) -> Segmentation:
    """What the model finds in an annotated field, taken to be at the model's resolution."""
    return segment_image(ImageSlide(sample.name, sample.image, predictor.card.mpp), predictor)


def compare(sample: Sample, found: Segmentation) -> Case:
    """Annotation beside prediction."""
    ids, types = (found.cells.column(name).tolist() for name in ("id", "type"))
    return Case(
        sample.name,
        sample.instances,
        found.instances,
        true_types=sample.types,
        pred_types=dict(zip(ids, types, strict=True)),
    )
