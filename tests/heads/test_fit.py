"""Heads that are trained on tokens in memory."""

import dataclasses

import jax
import numpy as np
import pytest

from cellvit_jax.heads.fit import Recipe, class_weights, fit
from cellvit_jax.heads.folds import held_out, pairs_of
from cellvit_jax.heads.pairs import Labelled
from cellvit_jax.inference.classify import probabilities

pytest.importorskip("optax")
RECIPE = Recipe(hidden_dim=16, epochs=30, batch_size=32, learning_rate=1e-2)


def clouds(counts, dim: int = 6, fields: int = 1) -> Labelled:
    """Tokens of classes that lie apart, far from zero and of unequal spread."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(counts)), counts)
    tokens = rng.normal(size=(len(labels), dim)) + 4 * np.eye(len(counts), dim)[labels]
    tokens = np.float32(tokens * np.geomspace(0.01, 100, dim) + 7)
    places = rng.integers(0, fields, len(labels))
    return Labelled(tokens, labels, places, labels + 1, np.array(counts))


def test_learns_classes_that_lie_apart():
    cells = clouds((80, 60, 60))
    train, val = held_out(cells, 0)
    fitted = fit(train, val, RECIPE)
    assert (probabilities(fitted.head, val.tokens)[:, 1:].argmax(1) == val.labels).mean() > 0.9
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]


def test_equal_seeds_give_equal_heads():
    cells = clouds((40, 30))
    first, again, other = (
        fit(cells, None, dataclasses.replace(RECIPE, epochs=2, seed=s)).head for s in (0, 0, 1)
    )
    kernel = first.fc1.kernel[...]
    np.testing.assert_array_equal(kernel, again.fc1.kernel[...])
    assert not np.allclose(kernel, other.fc1.kernel[...])


def test_a_rare_class_weighs_as_much_as_a_frequent_one():
    counts = np.array([90, 10, 0])
    weights = class_weights(counts, True)
    assert weights[:2] * counts[:2] == pytest.approx([50, 50])
    assert weights[2] == 0
    assert class_weights(counts, False).tolist() == [1, 1, 0]


@pytest.mark.parametrize("fields", [1, 6])
def test_annotated_cells_that_were_not_found_stay_counted(fields):
    cells = dataclasses.replace(clouds((20, 30), fields=fields), annotated=np.array([25, 31]))
    train, val = held_out(cells, 0)
    assert val.annotated.tolist() == val.counts.tolist()
    assert (train.annotated + val.annotated).tolist() == [25, 31]


def test_a_class_of_one_cell_and_one_of_none():
    train, val = held_out(clouds((30, 1, 0)), 0)
    assert train.counts.tolist() == [24, 1, 0]
    fitted = fit(train, val, RECIPE)  # of the validation cells all are of one class
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted.head))


def test_early_stopping_keeps_the_best_epoch():
    train, val = held_out(clouds((60, 60)), 0)
    fitted = fit(train, val, dataclasses.replace(RECIPE, epochs=60, patience=3))
    best = max(fitted.history, key=lambda e: (e["auroc"], -e["epoch"]))
    assert fitted.epoch == best["epoch"]
    assert len(fitted.history) == fitted.epoch + 3


def test_fields_are_held_out_whole_where_there_are_several():
    train, val = held_out(clouds((100, 50), fields=10), 0)
    assert not set(train.fields.tolist()) & set(val.fields.tolist())
    assert len(set(val.fields.tolist())) == 2
    assert len(train) + len(val) == 150


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["test", "train", "fold_0_train", "fold_0_val"], [("fold_0_train", "fold_0_val")]),
        (["train", "val"], [("train", "val")]),
        (["train", "test"], []),
        (["all"], []),
    ],
)
def test_splits_that_go_together(names, pairs):
    assert pairs_of(names) == pairs
