import math
import statistics

import pytest

from cellvit_jax.errors import InputError
from cellvit_jax.evaluation import protocols
from cellvit_jax.evaluation.protocols import PROTOCOLS, over_models, part
from cellvit_jax.evaluation.summary import evaluate
from tests.evaluation.cases import NAMES, made

FOLDS = [
    evaluate([made(10 * fold + i, "Colon" if i else "Skin") for i in range(3)], NAMES)
    for fold in range(3)
]
MPQ = (0.4788, 0.4793, 0.4957)  # of CellViT-256, as published: .4846 ± .0096


def test_means_and_deviations_are_over_models():
    summary = over_models(FOLDS, PROTOCOLS["pannuke"].figures)
    for mean in ("image_mean", "tissue_mean"):
        values = [fold.figures[mean]["mpq"] for fold in FOLDS]
        assert summary[mean]["mpq"] == pytest.approx(
            (statistics.mean(values), statistics.stdev(values))
        )
    values = [fold.figures["classes"]["Epithelial"]["pooled"]["f1"] for fold in FOLDS]
    assert summary["classes"]["Epithelial"]["f1"][0] == pytest.approx(statistics.mean(values))


def test_the_deviation_is_that_of_the_published_table():
    assert protocols._text(protocols._spread(MPQ)) == "0.4846 ± 0.0096"


def test_one_model_has_no_deviation():
    mean, sd = over_models(FOLDS[:1], ("bpq",))["image_mean"]["bpq"]
    assert mean > 0
    assert math.isnan(sd)


def test_the_table_labels_both_means():
    text = protocols.to_markdown(
        over_models(FOLDS, PROTOCOLS["pannuke"].figures), PROTOCOLS["pannuke"]
    )
    assert "| all nuclei | image mean | tissue mean |" in text
    assert "| Epithelial |" in text


def test_consep_has_the_dq_of_its_classes_beside_that_of_all_nuclei():
    text = protocols.to_markdown(
        over_models(FOLDS[:1], PROTOCOLS["consep"].figures), PROTOCOLS["consep"]
    )
    mean, classes = FOLDS[0].image_mean, FOLDS[0].figures["classes"]
    assert f"| mDQ | {mean['mdq']:.4f} |" in text
    assert f"| DQ | {mean['dq']:.4f} |" in text
    of = classes["Epithelial"]["image_mean"]
    assert f"| Epithelial | {of['pq']:.4f} | {of['dq']:.4f} |" in text


@pytest.mark.parametrize(
    ("splits", "found"),
    [
        (["train", "test"], "test"),
        (["all"], "all"),
        (["monusac testing data", "x"], "monusac testing data"),
    ],
)
def test_a_split_is_found_by_what_it_is_called(splits, found):
    assert part(splits, "test") == found


@pytest.mark.parametrize("splits", [["a", "b"], ["test 1", "test 2"]])
def test_an_unclear_split_is_asked_for(splits):
    with pytest.raises(InputError, match="name one of"):
        part(splits, "test")


def test_an_unknown_protocol_is_refused():
    with pytest.raises(InputError, match="pannuke"):
        protocols.find("x")
