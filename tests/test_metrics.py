import json

import numpy as np
import pytest

from cellvit_jax import metrics
from cellvit_jax.errors import InputError
from tests.shared import DATA, shared

RECORDS = sorted(path.stem for path in (DATA / "metrics").glob("*.npz"))
TRUE = np.array([[1, 1, 0, 2, 2, 0], [1, 1, 0, 2, 2, 0], [0, 0, 0, 0, 0, 0], [3, 3, 3, 0, 0, 0]])
PRED = np.array([[1, 1, 0, 0, 2, 2], [1, 0, 0, 0, 2, 2], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 4, 4]])


def record(name):
    maps = np.load(DATA / "metrics" / f"{name}.npz")
    return maps, json.loads((DATA / "metrics" / f"{name}.json").read_text())


def detection_scores(prefix, found):
    return {f"{prefix}_{key}": getattr(found, key) for key in ("f1", "precision", "recall")}


def random_maps(seed, count=40):
    rng = np.random.default_rng(seed)
    return [
        np.kron(rng.integers(0, count, (16, 16)), np.ones((4, 4), int))
        * (rng.random((64, 64)) < 0.8)
        for _ in range(2)
    ]


@pytest.mark.parametrize("name", RECORDS)
def test_segmentation_scores_equal_the_recorded_ones(name):
    maps, expected = record(name)
    pair = maps["true_instances"], maps["pred_instances"]
    ours = metrics.panoptic_quality(*pair) | {
        "aji": metrics.aggregated_jaccard(*pair),
        "aji_plus": metrics.aggregated_jaccard_plus(*pair),
        "dice": metrics.dice(*pair),
    }
    recorded = {key: value for key, value in expected.items() if key[:4] not in ("dete", "type")}
    ours.pop("iou")
    assert ours == pytest.approx(recorded, abs=1e-12)


@pytest.mark.parametrize("name", RECORDS)
def test_detection_scores_equal_the_recorded_ones(name):
    maps, expected = record(name)
    radius = expected.pop("detection_radius_px")
    points, types = {}, {}
    for side in ("true", "pred"):
        points[side] = metrics.centroids(maps[f"{side}_instances"])
        types[side] = metrics.instance_types(maps[f"{side}_instances"], maps[f"{side}_types"])
    found = metrics.detection(points["true"], points["pred"], radius)
    typed = metrics.typed_detection(
        points["true"], types["true"], points["pred"], types["pred"], radius
    )
    ours = detection_scores("detection", found)
    for type_id, found in typed.items():
        ours |= detection_scores(f"type{type_id}", found)
    recorded = {key: value for key, value in expected.items() if key[:4] in ("dete", "type")}
    undefined = {key: np.nan if value is None else value for key, value in recorded.items()}
    assert ours == pytest.approx(undefined, abs=1e-12, nan_ok=True)


def test_the_records_are_those_of_the_reference():
    recorded = shared("reference/metrics")
    for ours in sorted((DATA / "metrics").glob("*.*")):
        assert ours.read_bytes() == (recorded / ours.name).read_bytes()
    assert len(list(recorded.glob("*.json"))) == len(RECORDS)


def test_scores_of_a_pair_counted_by_hand():
    # IoU: 3/4 for the first pair, 2/6 for the second; the rest overlaps nothing
    quality = metrics.panoptic_quality(TRUE, PRED)
    assert (quality["tp"], quality["fp"], quality["fn"]) == (1, 2, 2)
    assert quality["sq"] == pytest.approx(0.75, abs=1e-5)
    assert quality["dq"] == pytest.approx(1 / 3, abs=1e-5)
    assert metrics.aggregated_jaccard(TRUE, PRED) == (3 + 2) / (4 + 6 + 3 + 2)
    assert quality["iou"] == 0.75
    assert metrics.dice(TRUE, PRED) == 2 * 5 / (11 + 9)
    assert metrics.jaccard(TRUE, PRED) == 5 / (11 + 9 - 5)


def test_aji_may_take_a_prediction_twice_and_aji_plus_may_not():
    true = np.array([[1, 1, 1, 2, 2]])
    pred = np.array([[1, 1, 1, 1, 1]])
    assert metrics.aggregated_jaccard(true, pred) == 5 / 10
    assert metrics.aggregated_jaccard_plus(true, pred) == 3 / 7


@pytest.mark.parametrize("seed", range(3))
def test_gaps_between_ids_and_their_dtype_do_not_matter(seed):
    true, pred = random_maps(seed)
    huge = np.where(true, true.astype(np.uint64) * 3 + 2**40, 0)
    spread = (7 * pred).astype(np.uint16)
    for score in (
        metrics.panoptic_quality,
        metrics.aggregated_jaccard,
        metrics.aggregated_jaccard_plus,
        metrics.dice,
        metrics.jaccard,
    ):
        assert score(huge, spread) == score(true, pred)


def test_the_order_of_ids_does_not_matter():
    true, pred = random_maps(0)
    renamed = np.concatenate([[0], np.random.default_rng(0).permutation(np.arange(1, 60))])[pred]
    assert metrics.panoptic_quality(true, renamed) == pytest.approx(
        metrics.panoptic_quality(true, pred)
    )


def test_a_map_without_background_keeps_its_first_nucleus():
    full = np.repeat([[7, 9]], 2, axis=0) + 2**33
    assert metrics.panoptic_quality(full, full)["tp"] == 2
    assert metrics.centroids(full).tolist() == [[0, 0.5], [1, 0.5]]


def test_two_empty_maps_have_no_score():
    empty = np.zeros((8, 8), np.uint8)
    assert np.isnan(
        [metrics.panoptic_quality(empty, empty)[key] for key in ("dq", "sq", "pq")]
    ).all()
    assert np.isnan(metrics.aggregated_jaccard(empty, empty))
    assert np.isnan(metrics.aggregated_jaccard_plus(empty, empty))
    assert np.isnan([metrics.dice(empty, empty), metrics.jaccard(empty, empty)]).all()
    assert np.isnan(metrics.detection(metrics.centroids(empty), metrics.centroids(empty)).f1)


def test_one_empty_map_scores_zero():
    empty = np.zeros_like(TRUE)
    for pair in ((TRUE, empty), (empty, TRUE)):
        assert metrics.panoptic_quality(*pair)["pq"] == 0
        assert metrics.aggregated_jaccard(*pair) == 0
        assert metrics.aggregated_jaccard_plus(*pair) == 0
        assert metrics.dice(*pair) == metrics.jaccard(*pair) == 0


@pytest.mark.parametrize("seed", range(3))
def test_class_scores_are_those_of_the_class_maps(seed):
    rng = np.random.default_rng(seed)
    true, pred = random_maps(seed)[0], random_maps(seed)[0]
    pred[:, 20:] = random_maps(seed + 1)[0][:, 20:]
    kinds = {side: rng.integers(1, 4, 60) for side in ("true", "pred")}
    ids = {"true": np.unique(true)[1:], "pred": np.unique(pred)[1:]}
    scores = metrics.panoptic_quality_per_class(
        true, kinds["true"][ids["true"]], pred, kinds["pred"][ids["pred"]], classes=range(5)
    )
    assert list(scores) == [1, 2, 3, 4]
    assert np.isnan(scores[4]["pq"])
    for c in (1, 2, 3):
        of_class = [m * (kinds[side][m] == c) for side, m in (("true", true), ("pred", pred))]
        assert scores[c] == pytest.approx(metrics.panoptic_quality(*of_class))


def test_the_type_of_an_instance_is_that_of_most_pixels_lowest_first():
    instances = np.array([[5, 5, 5, 0, 8, 8, 9]])
    types = np.array([[2, 2, 7, 7, 7, 3, 0]], np.uint8)
    assert metrics.instance_types(instances, types).tolist() == [2, 3, 0]


def test_pairs_beyond_the_radius_come_apart_after_the_assignment():
    true = np.array([[0.0, 0.0], [10.0, 0.0]])
    pred = np.array([[9.0, 0.0], [30.0, 0.0]])
    # the cheapest whole assignment pairs in order, so only the first pair is near enough
    assert metrics.detection(true, pred, radius=12) == metrics.Detection(tp=1, fp=1, fn=1)


def test_a_mistyped_pair_weighs_double():
    points = np.array([[0.0, 0.0], [50.0, 0.0], [99.0, 0.0]])
    typed = metrics.typed_detection(points, [1, 1, 2], points[:2], [1, 2])
    assert typed[1] == metrics.Detection(tp=1, fn_type=1)
    assert typed[2] == metrics.Detection(tp=0, fn=1, fp_type=1)
    assert typed[1].f1 == 2 / 4


def test_detections_pool_by_adding():
    total = metrics.Detection(1, 1, 0) + metrics.Detection(2, 0, 1)
    assert total.f1 == 6 / 8


def test_counts_of_many_images_pool_to_the_quality_of_one_with_all_of_them():
    pairs = [(TRUE, PRED), (PRED, TRUE), (TRUE, TRUE)]
    parts = [metrics.panoptic_quality(*pair) for pair in pairs]
    beside = [
        np.hstack([m + 9 * i * (m > 0) for i, m in enumerate(s)]) for s in zip(*pairs, strict=True)
    ]
    counts = [sum(part[key] for part in parts) for key in ("tp", "fp", "fn", "iou")]
    whole = metrics.panoptic_quality(*beside)
    assert metrics.pooled_quality(*counts) == pytest.approx(
        {k: whole[k] for k in ("dq", "sq", "pq")}
    )
    several = metrics.pooled_quality(*np.array([counts, [0, 0, 0, 0]]).T)
    assert several["pq"] == pytest.approx([whole["pq"], np.nan], nan_ok=True)


@pytest.mark.parametrize(
    "pair",
    [
        (TRUE, PRED[:2]),
        (TRUE.ravel(), PRED.ravel()),
        (TRUE.astype(float), PRED),
        (-TRUE, PRED),
    ],
)
def test_maps_that_are_no_pair_of_id_maps_are_refused(pair):
    with pytest.raises(InputError):
        metrics.panoptic_quality(*pair)


def test_a_wrong_number_of_types_is_refused():
    with pytest.raises(InputError, match="3 true nuclei"):
        metrics.panoptic_quality_per_class(TRUE, [1], PRED, [1, 1, 1])
    with pytest.raises(InputError, match="shape"):
        metrics.detection(np.zeros((3, 3)), np.zeros((3, 2)))
