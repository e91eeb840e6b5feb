"""The types that the network itself gave, as scores beside those of a head."""

import numpy as np
import pytest

from cellvit_jax.card import ModelCard, cell_classes
from cellvit_jax.heads.pairs import Labelled
from cellvit_jax.heads.tasks import own_scores

CARD = ModelCard(cell_classes("Inflammatory", "Epithelial", "Spindle-shaped"))  # ids 1, 2, 3


def cells(labels, own) -> Labelled:
    labels, own = np.array(labels), np.array(own)
    fields, tokens = np.zeros(len(own), int), np.zeros((len(own), 2), np.float32)
    return Labelled(tokens, labels, fields, own, np.bincount(labels))


def test_own_types_are_matched_by_name_in_any_order_and_case():
    found = own_scores(
        cells([0, 0, 0, 1, 1], [2, 2, 1, 1, 1]), CARD, ("EPITHELIAL", "inflammatory")
    )
    assert found["accuracy"] == 4 / 5
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["confusion"] == [[2, 1], [0, 2]]
    assert found["per_class"]["f1"] == pytest.approx([4 / 5, 4 / 5])
    assert np.isnan([found["auroc"], found["ap"], found["calibration"]["ece"]]).all()


def test_own_types_that_were_not_annotated_are_wrong():
    found = own_scores(cells([0, 0, 1, 1], [3, 2, 3, 1]), CARD, ("Epithelial", "Inflammatory"))
    assert (found["count"], found["accuracy"], found["majority"]) == (4, 0.5, 0.5)
    assert found["confusion"] == [[1, 0], [0, 1]]
    assert found["per_class"]["f1"] == pytest.approx([2 / 3, 2 / 3])
    assert found["f1"] == pytest.approx(2 / 3)
    assert found["per_class"]["count"] == [2, 2]


def test_own_types_are_not_scored_where_a_class_is_unknown():
    assert own_scores(cells([0, 1], [1, 2]), CARD, ("Inflammatory", "Dead")) is None
