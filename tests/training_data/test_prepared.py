import dataclasses
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("tensorflow_datasets")

from cellvit_jax.data import Dataset, consep, open_dataset, open_splits, prepared
from cellvit_jax.data.lazy import watched
from cellvit_jax.errors import InputError
from tests.shared import DATA
from tests.training_data.makers import MAKERS, field, made
from tests.training_data.same import assert_same


def assert_prepared_is_the_same(source, target) -> None:
    before = open_splits(source)
    prepared.write(before, target)
    after = open_splits(target)
    assert list(after) == [split.replace("all", "train") for split in before]
    for part, again in zip(before.values(), after.values(), strict=True):
        for a, b in zip(part.samples, again.samples, strict=True):
            assert_same(a, b)
            assert a.name == b.name
        empty = {"samples": ()}
        assert dataclasses.replace(part, **empty) == dataclasses.replace(again, **empty)


@pytest.mark.parametrize("kind", MAKERS)
def test_prepared_data_is_the_same_data(kind, tmp_path):
    made(kind, tmp_path / "source")
    assert_prepared_is_the_same(tmp_path / "source", tmp_path / "prepared")


def test_original_files_of_cellvitpp_and_their_folds_are_prepared(tmp_path):
    assert_prepared_is_the_same(DATA / "cellvitpp" / "segmentation", tmp_path / "prepared")


def test_a_prepared_folder_is_trained_on(tmp_path):
    from cellvit_jax.training.config import RECIPES, RunConfig, Source
    from cellvit_jax.training.fields import open_fields

    sample = made("consep", tmp_path / "source")
    prepared.write(open_splits(tmp_path / "source"), tmp_path / "prepared")
    sources = (Source(path=str(tmp_path / "prepared")),)
    fields = open_fields(RunConfig(data=sources, model="cellvit-tiny", recipe=RECIPES["demo"]()))
    assert (fields.learnt.classes, fields.measured) == (consep.CLASSES, None)
    (learnt,) = fields.learnt.samples
    assert learnt.name == "train_1"
    np.testing.assert_array_equal(learnt.instances, sample.instances)
    np.testing.assert_array_equal(learnt.types, np.array([0, 2, 3])[sample.types])


def test_points_stay_points(tmp_path):
    before = open_splits(DATA / "cellvitpp" / "detection")
    prepared.write({"train": before["train"]}, tmp_path / "prepared")
    after = open_dataset(tmp_path / "prepared")
    assert not after.outlined
    assert_same(before["train"].samples[0], after.samples[0])


def test_points_and_outlines_stay_so_side_by_side(tmp_path):
    points = dataclasses.replace(field(), types=None, points=np.ones((2, 3), np.float32))
    before = Dataset("both", [points, field()], ("a", "b"), outlined=False)
    prepared.write({"all": before}, tmp_path / "prepared")
    after = list(open_dataset(tmp_path / "prepared").samples)
    np.testing.assert_array_equal(after[0].points, points.points)
    assert after[1].points is None
    assert_same(after[1], field())


@pytest.fixture
def stored(tmp_path):
    """Twelve fields of different sizes and numbers of nuclei."""
    samples = [dataclasses.replace(field(48 + i, 64), name=f"f{i}") for i in range(12)]
    dataset = Dataset("made", samples, ("a", "b"))
    prepared.write({"all": dataset}, tmp_path / "prepared")
    return dataset, tmp_path / "prepared"


def test_order_is_kept_and_threads_read_at_once(stored):
    dataset, path = stored
    again = pickle.loads(pickle.dumps(open_dataset(path, "train")))
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(again.samples.__getitem__, range(12)))
    for a, b in zip(dataset.samples, read, strict=True):
        assert_same(a, b)


def test_what_is_replaced_is_read_anew(stored):
    dataset, path = stored
    assert open_dataset(path).samples[0].name == "f0"
    prepared.write({"all": dataclasses.replace(dataset, samples=dataset.samples[3:])}, path)
    assert [s.name for s in open_dataset(path).samples[:1]] == ["f3"]


def test_no_tensorflow_is_needed(stored):
    code = (
        "import sys\n"
        "from cellvit_jax.data import open_dataset, prepared\n"
        "from pathlib import Path\n"
        "dataset = open_dataset(sys.argv[1])\n"
        "prepared.write({'all': dataset}, Path(sys.argv[2]))\n"
        "assert open_dataset(sys.argv[2]).samples[11].name == 'f11'\n"
        "assert 'tensorflow' not in sys.modules"
    )
    _, path = stored
    command = [sys.executable, "-W", "error", "-c", code, path, path.with_name("again")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_failure_leaves_what_was_there(stored):
    dataset, path = stored

    def failing(samples, *_):
        yield next(samples)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared.write({"all": dataset}, path, failing)
    assert len(open_dataset(path).samples) == 12
    assert [p.name for p in path.parent.iterdir()] == ["prepared"]


def test_splits_of_different_classes_are_no_set(stored, tmp_path):
    dataset, _ = stored
    other = dataclasses.replace(dataset, classes=("b", "a"))
    with pytest.raises(InputError, match="one list of classes"):
        prepared.write({"train": dataset, "val": other}, tmp_path / "both")


def test_what_tfds_has_of_others_is_refused(stored):
    _, path = stored
    (path / "metadata.json").write_text("{}")
    with pytest.raises(InputError, match="data prepare"):
        open_splits(path)


def test_watched_passes_every_field(stored):
    dataset, _ = stored
    seen = []

    def watch(items, name, done, total):
        seen.append((name, done, total))
        return items

    assert len(list(watched(dataset, "train", watch))) == 12
    assert seen == [("train", 0, 12)]
