"""The pictures of a report: what is drawn where, and in which colours."""

import numpy as np

from cellvit_jax.evaluation import figures
from cellvit_jax.evaluation.scores import Case
from cellvit_jax.evaluation.summary import evaluate


def square(column: int | None) -> np.ndarray:
    """A nucleus of 8 pixels a side in an image of 32, or none."""
    instances = np.zeros((32, 32), np.int32)
    if column is not None:
        instances[8:16, column : column + 8] = 1
    return instances


def test_the_worst_images_come_first_and_those_without_a_figure_never():
    found = {"near": 9, "empty": None, "missed": None, "right": 8, "far": 10, "lost": 24}
    true = {name: square(None if name == "empty" else 8) for name in found}
    evaluation = evaluate([Case(n, true[n], square(found[n])) for n in found], {})
    names = [image.name for image in evaluation.images]
    worst = ["missed", "lost", "far", "near", "right"]
    assert [names[i] for i in figures.worst(evaluation)] == worst
    assert [names[i] for i in figures.worst(evaluation, 3)] == worst[:3]
