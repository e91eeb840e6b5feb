"""The page and the picture that say what a head is worth."""

import numpy as np
import pytest

from cellvit_jax.heads.report import draw, markdown
from cellvit_jax.heads.scores import scores

TRUE = np.array([0, 0, 0, 1, 1])
CHANCES = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6], [0.45, 0.55]])


@pytest.fixture
def report():
    found = scores(TRUE, CHANCES)
    return {"heading": "A head", "text": "", "classes": ["A", "B"], "scores": {"test": found}}


def test_the_picture_has_the_counts_of_the_confusion(report):
    pytest.importorskip("matplotlib")
    figure = draw(report)
    matrix, reliability = figure.axes
    counts = {tuple(map(int, t.get_position())): t.get_text() for t in matrix.texts}
    assert counts == {(0, 0): "2", (1, 0): "1", (0, 1): "0", (1, 1): "2"}  # predicted, annotated
    assert [label.get_text() for label in matrix.get_yticklabels()] == ["A", "B"]
    places = reliability.collections[0].get_offsets()
    np.testing.assert_allclose(places, [[0.55, 1], [0.6, 1], [0.7, 0], [0.8, 1], [0.9, 1]])
    assert "test, 5 cells" in figure.get_suptitle()


def test_the_page_has_the_accuracy_beside_that_of_the_largest_class(report):
    page = markdown(report)
    assert "Accuracy 0.800" in page
    assert "largest class, said always, would be right in 0.600." in page
    assert "| B | 2 |" in page
