"""Never the same patient on both sides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellvit_jax.errors import InputError
from cellvit_jax.probes import labels
from cellvit_jax.probes.split import assigned, folds_of, held_out
from tests.probes.makers import table

NOTHING = [None]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7)), min_size=2, max_size=40))
def test_patients_stay_whole_and_everybody_is_scored_once(rows):
    kinds, groups = np.array(rows).T
    if len(set(groups.tolist())) < 2:
        with pytest.raises(InputError, match="one patient"):
            folds_of(kinds, groups, NOTHING * len(rows), 5, 0)
        return
    _, folds = folds_of(kinds, groups, NOTHING * len(rows), 5, 0)
    assert sorted(np.concatenate([f.test for f in folds]).tolist()) == list(range(len(rows)))
    for fold in folds:
        parts = [set(groups[part].tolist()) for part in fold]
        assert sum(map(len, parts)) == len(set.union(*parts))
        assert len(fold.train) > 0
        assert sum(map(len, fold)) == len(rows)
        # what chooses holds no class that could not be learned
        assert set(kinds[fold.val]) <= set(kinds[fold.train])


def test_classes_are_spread_evenly():
    kinds, groups = np.repeat([0, 1, 2], [50, 20, 10]), np.arange(80)
    parts = assigned(kinds, groups, 5, np.random.default_rng(0))
    counts = [np.bincount(kinds[parts == part], minlength=3).tolist() for part in range(5)]
    assert counts == [[10, 4, 2]] * 5


def test_a_class_of_one_patient_is_learned_from():
    kinds, groups = np.array([0, 0, 1, 1, 2]), np.arange(5)
    train, val = held_out(np.arange(5), kinds, groups, np.random.default_rng(0))
    assert 4 in train
    assert sorted([*train, *val]) == list(range(5))


def test_a_split_that_is_given_is_kept():
    kinds, groups = np.array([0, 1] * 4), np.arange(8)
    splits = ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    title, (fold,) = folds_of(kinds, groups, splits, 5, 0)
    assert (title, [part.tolist() for part in fold]) == ("test", [[0, 1, 2, 3], [4, 5], [6, 7]])
    title, (fold,) = folds_of(kinds, groups, ["train"] * 6 + ["val"] * 2, 5, 0)
    assert (title, fold.test.tolist()) == ("val", [6, 7])
    assert sorted([*fold.train, *fold.val]) == list(range(6))
    for bad, message in ((["train"] * 8, "nothing to measure"), (["test"] * 8, "learn from")):
        with pytest.raises(InputError, match=message):
            folds_of(kinds, groups, bad, 5, 0)


def test_a_table_with_everything(tmp_path):
    lines = ("a.svs,tumour,p1,train", "b,normal,p2,Validation")
    path = table(tmp_path / "t.csv", *lines, head="Slide,Label,Patient,Split")
    found = labels.read(path)
    assert [(one.slide, one.label, one.patient, one.split) for one in found] == [
        ("a.svs", "tumour", "p1", "train"),
        ("b", "normal", "p2", "val"),
    ]
    assert labels.named(path, "a.svs", {"a"}) == "a"
    assert labels.named(path, "a.b", {"a.b"}) == "a.b"


BAD = {
    "leak": ("slide,label,patient,split", ("a,x,p,train", "b,y,p,test"), "patient p is in train"),
    "twice": ("slide,label", ("a,x", "a,x"), "labels a twice"),
    "two people": ("slide,patch,label,patient", ("a,1,x,p", "a,2,x,q"), "a is of p and of q"),
    "patches of a slide apart": ("slide,patch,label,split", ("a,1,x,train", "a,2,x,val"), "a is"),
    "empty": ("slide,label", ("a,",), "line 2 of .* has no label"),
    "short": ("slide,label", ("a",), "too few columns"),
    "split": ("slide,label,split", ("a,x,blind",), "train, val or test, not 'blind'"),
    "patch": ("slide,patch,label", ("a,first,x",), "a patch is a number"),
    "head": ("a,x", ("b,y",), "no column label and no slide"),
    "nothing": ("slide,label", (), "no line below"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_table_is_one_sentence(kind, tmp_path):
    head, lines, message = BAD[kind]
    with pytest.raises(InputError, match=message):
        labels.read(table(tmp_path / "t.csv", *lines, head=head))
    with pytest.raises(InputError, match="cannot be read"):
        labels.read(tmp_path / "absent.csv")
