import json
import math

import numpy as np
import pytest

from cellvit_jax import metrics
from cellvit_jax.errors import InputError
from cellvit_jax.evaluation import protocol
from cellvit_jax.evaluation.protocol import Case
from tests.shared import DATA

NAMES = {1: "Epithelial", 2: "Inflammatory", 3: "Other", 4: "Unseen"}


def recorded(name, *, typed=True):
    maps = np.load(DATA / "metrics" / f"{name}.npz")
    pred = maps["pred_instances"]
    types = metrics.instance_types(pred, maps["pred_types"])
    return Case(
        name,
        maps["true_instances"],
        pred,
        maps["true_types"] if typed else None,
        dict(zip(np.unique(pred)[1:].tolist(), types.tolist(), strict=True)),
    )


def expected(name):
    scores = json.loads((DATA / "metrics" / f"{name}.json").read_text())
    return {key: math.nan if value is None else value for key, value in scores.items()}


@pytest.mark.parametrize("name", ["crowded", "merged", "shifted", "single"])
def test_scores_of_an_image_equal_the_recorded_ones(name):
    image = protocol.score_image(recorded(name), list(NAMES))
    record = expected(name)
    assert image.overall.figures["bpq"] == pytest.approx(record["pq"], abs=1e-12)
    for key in ("precision", "recall", "f1"):
        assert image.overall.figures[key] == pytest.approx(record[f"detection_{key}"], abs=1e-12)
        for c in (1, 2):
            ours = image.classes[c].figures[key]
            assert ours == pytest.approx(record[f"type{c}_{key}"], abs=1e-12)


def test_a_class_absent_on_both_sides_does_not_count_towards_mpq():
    image = protocol.score_image(recorded("crowded"), list(NAMES))
    assert math.isnan(image.classes[4].quality["pq"])
    present = [image.classes[c].quality["pq"] for c in (1, 2, 3)]
    assert image.overall.quality["mpq"] == pytest.approx(np.mean(present))


def test_a_class_only_predicted_counts_as_zero():
    image = protocol.score_image(recorded("merged"), list(NAMES))
    assert image.classes[3].nuclei == 0
    assert image.classes[3].quality["pq"] == 0


def test_means_are_over_images_and_pooled_over_nuclei():
    evaluation = protocol.evaluate(map(recorded, ("crowded", "merged")), NAMES)
    records = [expected(name) for name in ("crowded", "merged")]
    assert evaluation.mean["bpq"] == pytest.approx(np.mean([r["pq"] for r in records]))
    assert evaluation.mean["f1"] == pytest.approx(np.mean([r["detection_f1"] for r in records]))
    counts = [image.overall.detection for image in evaluation.images]
    tp = sum(d.tp for d in counts)
    assert evaluation.pooled["recall"] == pytest.approx(tp / sum(d.tp + d.fn for d in counts))


def test_an_annotation_without_types_has_no_mpq():
    evaluation = protocol.evaluate([recorded("merged", typed=False)], NAMES)
    assert math.isnan(evaluation.mean["mpq"])
    assert evaluation.annotated == dict.fromkeys(NAMES.values(), 0)
    assert "class" not in evaluation.to_markdown().split("Detection")[0]


def test_predictions_without_a_type_still_count_as_nuclei():
    case = recorded("single")
    image = protocol.score_image(Case("x", case.true, case.pred, case.true_types, {}), [1, 2])
    assert image.overall.quality["bpq"] > 0.99
    assert image.overall.quality["mpq"] == 0


def test_json_has_null_for_what_is_undefined():
    summary = json.loads(protocol.evaluate([recorded("merged")], NAMES).to_json())
    assert summary["classes"]["Other"]["mean"]["recall"] is None
    assert summary["classes"]["Epithelial"]["nuclei"] > 10
    assert summary["images"][0]["classes"]["Other"]["pq"] == 0
    assert summary["mean"]["bpq"] == pytest.approx(expected("merged")["pq"])


def test_markdown_shows_images_classes_and_which_are_missing():
    text = protocol.evaluate(map(recorded, ("crowded", "single")), NAMES).to_markdown()
    assert "| crowded | 376 | 0.231 |" in text
    assert "| **mean** | 395 |" in text
    assert "| Unseen | 0 | – | – | – | – | – |" in text
    assert "Classes without an annotated nucleus in these images: Unseen." in text


def test_no_image_at_all_is_refused():
    with pytest.raises(InputError, match="no image"):
        protocol.evaluate([], NAMES)


def test_maps_of_two_sizes_are_refused():
    with pytest.raises(InputError, match="one size"):
        protocol.evaluate([Case("x", np.zeros((4, 4), int), np.zeros((4, 5), int))], NAMES)
