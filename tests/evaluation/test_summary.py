import math

import numpy as np
import pytest

from cellvit_jax.errors import InputError
from cellvit_jax.evaluation.scores import score_image
from cellvit_jax.evaluation.summary import evaluate
from tests.evaluation.cases import NAMES, expected, made, recorded

TISSUES = ("Colon", "Colon", "Skin", "Lung", "Lung", "Lung")


def over_tissues():
    cases = [made(i, tissue) for i, tissue in enumerate(TISSUES)]
    return cases, evaluate(cases, NAMES)


def test_means_are_over_images_and_pooled_over_nuclei():
    evaluation = evaluate(map(recorded, ("crowded", "merged")), NAMES)
    records = [expected(name) for name in ("crowded", "merged")]
    assert evaluation.image_mean["bpq"] == pytest.approx(np.mean([r["pq"] for r in records]))
    assert evaluation.image_mean["f1"] == pytest.approx(
        np.mean([r["detection_f1"] for r in records])
    )
    tp, fp, fn = (sum(r[key] for r in records) for key in ("tp", "fp", "fn"))
    assert evaluation.pooled["dq"] == pytest.approx(tp / (tp + fp / 2 + fn / 2))
    counts = [image.overall.detection for image in evaluation.images]
    found = sum(d.tp for d in counts)
    assert evaluation.pooled["recall"] == pytest.approx(found / sum(d.tp + d.fn for d in counts))


def test_the_tissue_mean_is_that_of_pannuke():
    """Class by class, image by image, tissue by tissue, one loop each, as the tables count."""
    cases, evaluation = over_tissues()
    by_tissue = []
    for tissue in dict.fromkeys(TISSUES):
        images = []
        for case in (case for case in cases if case.tissue == tissue):
            per_class = []
            for c in NAMES:
                true = np.where(case.true_types == c, case.true, 0)
                ids = [i for i, kind in case.pred_types.items() if kind == c]
                pred = np.where(np.isin(case.pred, ids), case.pred, 0)
                if true.any() or pred.any():
                    per_class.append(score_pair(true, pred))
            images.append(sum(per_class) / len(per_class))
        by_tissue.append(sum(images) / len(images))
    assert evaluation.tissue_mean["mpq"] == pytest.approx(sum(by_tissue) / 3, abs=1e-12)
    assert evaluation.tissue_mean["mpq"] != pytest.approx(evaluation.image_mean["mpq"], abs=1e-3)


def score_pair(true, pred):
    """PQ with a mask for every nucleus."""
    ids = [np.unique(m[m > 0]) for m in (true, pred)]
    ious = []
    for t in ids[0]:
        for p in ids[1]:
            iou = np.sum((true == t) & (pred == p)) / np.sum((true == t) | (pred == p))
            ious += [iou] if iou > 0.5 else []
    wrong = len(ids[0]) + len(ids[1]) - 2 * len(ious)
    return sum(ious) / (len(ious) + 1e-6) * len(ious) / (len(ious) + wrong / 2 + 1e-6)


def test_mpq_plus_pools_counts_per_class_and_then_averages_classes():
    cases, evaluation = over_tissues()
    qualities = []
    for c in (1, 2, 3):
        counts = [score_image(case, [c]).classes[c].matched for case in cases]
        tp, fp, fn, iou = np.sum(counts, axis=0)
        qualities.append(iou / (tp + fp / 2 + fn / 2))
    assert evaluation.pooled["mpq_plus"] == pytest.approx(np.mean(qualities), abs=1e-5)


def test_figures_of_a_tissue_are_those_of_its_images_alone():
    cases, evaluation = over_tissues()
    alone = evaluate(cases[3:], NAMES)
    lung = evaluation.figures["tissues"]["Lung"]
    assert lung == pytest.approx(alone.image_mean, nan_ok=True)
    classes = alone.figures["classes"]["Epithelial"]["image_mean"]
    assert evaluation.figures["classes"]["Epithelial"]["tissues"]["Lung"] == pytest.approx(classes)


def test_an_annotation_without_types_has_no_mpq():
    evaluation = evaluate([recorded("merged", typed=False)], NAMES)
    assert math.isnan(evaluation.image_mean["mpq"])
    assert evaluation.annotated == dict.fromkeys(NAMES.values(), 0)
    assert evaluation.figures["classes"] == {}
    assert "mpq_plus" not in evaluation.pooled


def test_images_without_tissue_have_no_tissue_mean():
    evaluation = evaluate([made(0), made(1)], NAMES)
    assert evaluation.tissue_mean == evaluation.figures["tissues"] == {}


def test_every_figure_lies_within_its_interval():
    _, evaluation = over_tissues()
    for mean in ("image_mean", "tissue_mean", "pooled"):
        for key, value in evaluation.figures[mean].items():
            low, high = evaluation.intervals[mean][key]
            assert math.isnan(value) or low <= value <= high


def test_no_image_at_all_is_refused():
    with pytest.raises(InputError, match="no image"):
        evaluate([], NAMES)
