"""The pictures of a report: what is drawn where, and in which colours."""

import numpy as np
import pytest
from PIL import Image

from cellvit_jax.card import COLORS
from cellvit_jax.data import Sample
from cellvit_jax.evaluation import figures
from cellvit_jax.evaluation.jobs import Prediction
from cellvit_jax.evaluation.scores import Case
from cellvit_jax.evaluation.summary import evaluate
from cellvit_jax.exports.contact_sheet import CAPTION, GAP, PANEL


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


@pytest.mark.parametrize(
    ("class_names", "annotated", "predicted"),
    [({1: "A", 2: "B"}, (1, 2), (2, 0)), ({}, (0, 0), (0, 0))],
)
def test_outlines_have_the_colours_of_their_classes_on_both_sides(
    tmp_path, class_names, annotated, predicted
):
    """Of two nuclei the first is mistyped, the second has no type."""
    instances = square(4) + 2 * square(20)
    types = instances.astype(np.uint8)
    sample = Sample("field", np.full((32, 32, 3), 127, np.uint8), instances, types)
    shown = [("field", sample, Prediction(instances, {1: 2}))]
    figures.write_worst(shown, class_names, tmp_path / "worst.png")
    page = np.asarray(Image.open(tmp_path / "worst.png"))[GAP + CAPTION :][:PANEL]
    for side, expected in enumerate((annotated, predicted)):
        left = GAP + side * (PANEL + GAP)
        halves = page[:, left : left + PANEL // 2], page[:, left + PANEL // 2 : left + PANEL]
        for half, kind in zip(halves, expected, strict=True):
            drawn = [i for i in range(3) if (half == COLORS[i]).all(-1).any()]
            assert drawn == [kind]
