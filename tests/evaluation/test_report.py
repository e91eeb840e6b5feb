import json

import pytest

from cellvit_jax.evaluation import report
from cellvit_jax.evaluation.summary import evaluate
from tests.evaluation.cases import NAMES, expected, made, recorded


def test_json_has_null_for_what_is_undefined():
    summary = json.loads(report.to_json(evaluate([recorded("merged")], NAMES)))
    figures = summary["figures"]
    assert figures["classes"]["Other"]["image_mean"]["recall"] is None
    assert summary["nuclei_per_class"]["Epithelial"] > 10
    assert summary["per_image"][0]["classes"]["Other"]["pq"] == 0
    assert figures["image_mean"]["bpq"] == pytest.approx(expected("merged")["pq"])
    assert summary["intervals"]["image_mean"]["bpq"] == [figures["image_mean"]["bpq"]] * 2


def test_markdown_shows_images_classes_and_which_are_missing():
    text = report.to_markdown(evaluate(map(recorded, ("crowded", "single")), NAMES))
    assert "| crowded | 376 | 0.231 |" in text
    assert "| **image mean** | 395 |" in text
    assert "| Unseen | 0 | – | – | – | – | – | – | – | – | – |" in text
    assert "Classes without an annotated nucleus in these images: Unseen." in text
    assert "tissue |" not in text.replace("tissue mean PQ |", "")


def test_markdown_labels_both_means_where_tissues_are_known():
    text = report.to_markdown(evaluate([made(0, "Colon"), made(1, "Skin")], NAMES))
    assert text.startswith("| all nuclei | image mean | tissue mean | pooled |")
    assert "| Colon | 1 |" in text


def test_markdown_leaves_types_out_where_there_are_none():
    text = report.to_markdown(evaluate([recorded("merged", typed=False)], NAMES))
    assert "| class |" not in text
    assert "\n| mPQ |" not in text


def test_many_images_are_left_to_the_json_file():
    evaluation = evaluate([made(0)] * (report.MANY + 1), NAMES)
    assert "| image |" not in report.to_markdown(evaluation)
    assert len(evaluation.summary()["per_image"]) == report.MANY + 1


def test_names_do_not_break_a_table():
    assert report.table(["a", "b"], [["x|y", 0.5]]).endswith("| x\\|y | 0.500 |")
