import dataclasses

import numpy as np
import pytest
import yaml

from cellvit_jax.data import Dataset, open_dataset, open_splits, write
from cellvit_jax.errors import InputError
from cellvit_jax.npy_files import read_npy
from tests.shared import DATA
from tests.training_data.makers import field, made
from tests.training_data.same import assert_same, assert_same_nuclei


def dataset(*samples, **facts) -> Dataset:
    return Dataset("made", samples or [field()], ("a", "b"), **facts)


def test_a_plain_folder_is_the_same_data(tmp_path):
    before = dataset(mpp=0.5, license="CC0", citation="nobody")
    write.write_plain({"all": before}, tmp_path / "plain")
    after = open_dataset(tmp_path / "plain")
    assert_same(before.samples[0], after.samples[0])
    assert dataclasses.replace(before, samples=()) == dataclasses.replace(after, samples=())


def test_a_plain_folder_keeps_tissues(tmp_path):
    made("pannuke", tmp_path / "raw")
    before = open_splits(tmp_path / "raw")
    write.write_plain(before, tmp_path / "plain")
    after = open_splits(tmp_path / "plain")
    for old, new in zip(before.values(), after.values(), strict=True):
        assert (old.classes, old.tissues) == (new.classes, new.tissues)
        for a, b in zip(old.samples, new.samples, strict=True):
            assert_same(a, b)


def test_splits_are_folders_and_ids_have_no_gaps(tmp_path):
    sample = field()
    gaps = dataclasses.replace(sample, instances=sample.instances * 1000)
    write.write_plain({"train": dataset(gaps), "val": dataset()}, tmp_path / "plain")
    splits = open_splits(tmp_path / "plain")
    assert list(splits) == ["train", "val"]
    np.testing.assert_array_equal(splits["train"].samples[0].instances, sample.instances)


def test_a_field_without_background_keeps_all_its_nuclei(tmp_path):
    halves = np.repeat(np.array([[5, 9]], np.int32), 32, axis=0).repeat(16, axis=1)
    sample = dataclasses.replace(field(32, 32, typed=False), instances=halves)
    write.write_plain({"all": Dataset("made", [sample], ())}, tmp_path / "plain")
    assert_same_nuclei(open_dataset(tmp_path / "plain").samples[0].instances, halves)


def test_folds_of_cellvit_are_the_same_data(tmp_path):
    made("pannuke", tmp_path / "raw")
    before = open_splits(tmp_path / "raw")
    write.write_cellvit(before, tmp_path / "folds")
    after = open_splits(tmp_path / "folds")
    assert list(after) == ["fold0", "fold1", "fold2"]
    for old, new in zip(before.values(), after.values(), strict=True):
        assert (old.classes, old.tissues) == (new.classes, new.tissues)
        for a, b in zip(old.samples, new.samples, strict=True):
            assert_same(a, b)


def test_what_cellvit_wants_beside_the_images_is_computed(tmp_path):
    made("pannuke", tmp_path / "raw")
    write.write_cellvit(open_splits(tmp_path / "raw"), tmp_path / "folds")
    fold = tmp_path / "folds" / "fold0"
    kinds = [field().types[field().instances == i][0] for i in range(1, 21)]
    head, first, _ = (fold / "cell_count.csv").read_text().splitlines()
    assert head == "Image,Neoplastic,Inflammatory,Connective,Dead,Epithelial"
    assert first == f"fold1_0.png,{kinds.count(1)},{kinds.count(2)},0,0,0"
    types = (fold / "types.csv").read_text().splitlines()
    assert types == ["img,type", "fold1_0.png,Breast", "fold1_1.png,Bile-duct"]
    weights = yaml.safe_load((tmp_path / "folds" / "weight_config.yaml").read_text())
    assert weights == {"tissue": {"Breast": 3, "Bile-duct": 3}}
    label = read_npy(fold / "labels" / "fold1_0.npy")
    assert {name: array.dtype for name, array in label.items()} == {
        "inst_map": np.int32,
        "type_map": np.int32,
    }


def test_what_has_no_types_and_tissues_is_of_one_unknown_type(tmp_path):
    untyped = Dataset("made", [field(typed=False)], ())
    write.write_cellvit({"all": untyped}, tmp_path / "folds")
    after = open_dataset(tmp_path / "folds")
    assert (after.classes, after.tissues) == (("Unknown",), ("Unknown",))
    np.testing.assert_array_equal(after.samples[0].types, field().instances > 0)


@pytest.mark.parametrize("writer", [write.write_plain, write.write_cellvit])
def test_points_and_names_that_occur_twice_are_refused(writer, tmp_path):
    with pytest.raises(InputError, match="pointed at"):
        writer(open_splits(DATA / "cellvitpp" / "detection"), tmp_path / "out")
    with pytest.raises(InputError, match="two fields are called made"):
        writer({"all": dataset(field(), field())}, tmp_path / "out")
    assert not list(tmp_path.iterdir())
