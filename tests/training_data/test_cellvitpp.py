import shutil

import numpy as np
import pytest

from cellvit_jax.data import open_dataset, open_splits
from cellvit_jax.data.open import disjoint, find_layout
from cellvit_jax.errors import InputError
from tests.shared import DATA, shared

OUTLINED, POINTED = DATA / "cellvitpp" / "segmentation", DATA / "cellvitpp" / "detection"


def test_outlined_nuclei_are_read_from_the_original_files():
    dataset = open_dataset(OUTLINED, "train")
    (sample,) = dataset.samples
    assert (find_layout(OUTLINED), dataset.classes) == ("cellvit++", ("Non-Tumor", "Tumor"))
    assert sample.image.shape == (260, 288, 3)
    assert (sample.instances.max(), np.unique(sample.types).tolist()) == (19, [0, 1, 2])


@pytest.mark.parametrize("named", ["Background", " background", "BG", "null"])
def test_of_masks_a_zero_that_is_named_like_background_is_none_of_the_classes(named, tmp_path):
    shutil.copytree(OUTLINED, tmp_path / "set")
    (tmp_path / "set" / "label_map.yaml").write_text(f"0: {named}\n1: A\n2: B\n")
    dataset = open_dataset(tmp_path / "set", "train")
    assert dataset.classes == ("A", "B")
    assert np.unique(dataset.samples[0].types).tolist() == [0, 1, 2]


def test_of_masks_a_class_with_the_id_of_the_background_is_refused(tmp_path):
    shutil.copytree(OUTLINED, tmp_path / "set")
    (tmp_path / "set" / "label_map.yaml").write_text("0: Non-Tumor\n1: Tumor\n")
    with pytest.raises(InputError, match=r"label_map\.yaml calls 0 'Non-Tumor', .* ids from 1"):
        open_dataset(tmp_path / "set", "train")
    (tmp_path / "set" / "label_map.yaml").write_text("2: Non-Tumor\n3: Tumor\n")
    with pytest.raises(InputError, match="begins with the id 2, but classes of masks with 1"):
        open_dataset(tmp_path / "set", "train")


def test_points_are_read_from_the_original_files_with_ids_from_one():
    dataset = open_dataset(POINTED, "train")
    (sample,) = dataset.samples
    rows = np.loadtxt(POINTED / "train" / "labels" / "train_1.csv", delimiter=",")
    np.testing.assert_array_equal(sample.points - (0, 0, 1), rows)
    assert (find_layout(POINTED), dataset.outlined) == ("cellvit++-points", False)
    assert dataset.classes[0] == "tumor_any"
    assert not sample.instances.any()
    assert sample.types is None


@pytest.mark.parametrize("first", [1, 2, 7])
def test_points_count_from_where_their_label_map_does(first, tmp_path):
    shutil.copytree(POINTED, tmp_path / "set")
    (label,) = (tmp_path / "set" / "train" / "labels").iterdir()
    label.write_text(
        "".join(f"{x:g},{y:g},{c + first:g}\n" for x, y, c in np.loadtxt(label, delimiter=","))
    )
    names = "".join(f"{first + i}: {name}\n" for i, name in enumerate("ABCD"))
    (tmp_path / "set" / "label_map.yaml").write_text(names)
    (shifted,) = open_dataset(tmp_path / "set", "train").samples
    (original,) = open_dataset(POINTED, "train").samples
    np.testing.assert_array_equal(shifted.points, original.points)
    label.write_text("5,6,0")
    with pytest.raises(InputError, match=f"among {first} to {first + 3}"):
        open_dataset(tmp_path / "set", "train").samples[0]


def test_folds_are_splits_that_hold_nothing_new():
    splits = open_splits(OUTLINED)
    assert list(splits) == ["train", "fold_0_train", "fold_0_val"]
    assert list(disjoint(splits)) == ["train"]


@pytest.mark.parametrize("kind", ["Segmentation", "Detection"])
def test_whole_examples_open(kind):
    splits = open_splits(shared(f"data/cellvitpp-examples/Example-{kind}"))
    counts = {split: len(part.samples) for split, part in splits.items()}
    assert counts["train"] == counts["fold_1_train"] + counts["fold_1_val"] == 10
    assert all(s.image.shape == (256, 256, 3) for s in splits["fold_2_val"].samples)


@pytest.mark.parametrize(
    ("row", "message"),
    [("5,6,4", "class"), ("288,6,0", "outside"), ("5;6;0", "x,y,class"), ("-1,6,0", "outside")],
)
def test_bad_points_are_named(row, message, tmp_path):
    shutil.copytree(POINTED, tmp_path / "set")
    (tmp_path / "set" / "train" / "labels" / "train_1.csv").write_text(row)
    with pytest.raises(InputError, match=message):
        open_dataset(tmp_path / "set", "train").samples[0]


def test_a_fold_that_names_another_image_is_refused(tmp_path):
    shutil.copytree(OUTLINED, tmp_path / "set")
    (tmp_path / "set" / "splits" / "fold_0" / "val.csv").write_text("train_9\n")
    with pytest.raises(InputError, match="train_9"):
        open_splits(tmp_path / "set")
