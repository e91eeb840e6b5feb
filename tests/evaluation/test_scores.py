import dataclasses
import math

import numpy as np
import pytest

from cellvit_jax.errors import InputError
from cellvit_jax.evaluation.scores import Case, score_image
from tests.evaluation.cases import NAMES, expected, made, recorded

QUALITIES = {"bpq": "pq", "dq": "dq", "sq": "sq", "aji": "aji", "aji_plus": "aji_plus"}


@pytest.mark.parametrize("name", ["crowded", "merged", "shifted", "single"])
def test_scores_of_an_image_equal_the_recorded_ones(name):
    image = score_image(recorded(name), list(NAMES))
    record = expected(name)
    ours = image.overall.figures
    for key, known in (QUALITIES | {"dice": "dice"}).items():
        assert ours[key] == pytest.approx(record[known], abs=1e-12)
    assert image.overall.matched[:3] == tuple(record[key] for key in ("tp", "fp", "fn"))
    for key in ("precision", "recall", "f1"):
        assert ours[key] == pytest.approx(record[f"detection_{key}"], abs=1e-12)
        for c in (c for c in NAMES if f"type{c}_{key}" in record):
            known, typed = record[f"type{c}_{key}"], image.classes[c].figures[key]
            assert typed == pytest.approx(known, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("mean", ["mpq", "mdq"])
def test_a_class_absent_on_both_sides_does_not_count_towards_means_of_classes(mean):
    image, of = score_image(recorded("crowded"), list(NAMES)), mean[1:]
    assert math.isnan(image.classes[4].quality[of])
    present = [image.classes[c].quality[of] for c in (1, 2, 3)]
    assert image.overall.quality[mean] == pytest.approx(np.mean(present))


def test_a_class_only_predicted_counts_as_zero():
    image = score_image(recorded("merged"), list(NAMES))
    assert image.classes[3].nuclei == 0
    assert image.classes[3].quality["pq"] == 0


def test_predictions_without_a_type_still_count_as_nuclei():
    case = recorded("single")
    image = score_image(Case("x", case.true, case.pred, case.true_types, {}), [1, 2])
    assert image.overall.quality["bpq"] > 0.99
    assert image.overall.quality["mpq"] == 0


def test_dice_and_jaccard_are_one_function_of_each_other():
    figures = score_image(made(0), [1]).overall.figures
    assert figures["dice"] == pytest.approx(2 * figures["jaccard"] / (1 + figures["jaccard"]))


@pytest.mark.parametrize(("found", "score"), [("Colon", 1), ("Skin", 0), (None, math.nan)])
def test_a_tissue_is_right_wrong_or_not_told(found, score):
    case = dataclasses.replace(made(0, "Colon"), pred_tissue=found)
    accuracy = score_image(case, [1]).overall.quality["tissue_accuracy"]
    assert accuracy == pytest.approx(score, nan_ok=True)


def test_maps_of_two_sizes_are_refused():
    with pytest.raises(InputError, match="one size"):
        score_image(Case("x", np.zeros((4, 4), int), np.zeros((4, 5), int)), [])
