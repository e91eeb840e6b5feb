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
from tests.evaluation.cases import NAMES, made


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


@pytest.mark.parametrize("typed", [True, False])
def test_bars_are_as_high_as_their_figures_and_whiskers_as_long_as_their_intervals(typed):
    pytest.importorskip("matplotlib")
    evaluation = evaluate([made(seed) for seed in range(3)], NAMES if typed else {})
    (axes,) = figures._bars(evaluation).axes
    names = [*NAMES.values()] if typed else ["nuclei"]
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    groups = [group for group in axes.containers if hasattr(group, "patches")]
    assert [group.get_label() for group in groups] == ["PQ", "DQ", "SQ", "F1"]
    for key, group in zip(("pq", "dq", "sq", "f1"), groups, strict=True):
        whiskers = group.errorbar.lines[2][0].get_segments()
        for place, (name, bar, whisker) in enumerate(zip(names, group, whiskers, strict=True)):
            key = key if typed or key != "pq" else "bpq"
            parts = evaluation.figures, evaluation.intervals
            value, ends = (
                (tree["classes"][name] if typed else tree)["pooled"][key] for tree in parts
            )
            assert bar.get_x() + bar.get_width() / 2 == pytest.approx(place, abs=0.4)
            assert bar.get_height() == pytest.approx(np.nan_to_num(value))
            assert whisker[:, 1] == pytest.approx(np.nan_to_num(ends))


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
