import dataclasses
from itertools import islice

import cv2
import numpy as np
import pytest

from tests.training_data.fields import aligned, field

pytest.importorskip("grain")

from orbax.checkpoint import v1 as ocp

from cellvit_jax.data import Sample
from cellvit_jax.data.augment import Augmentation
from cellvit_jax.data.pipeline import EveryTile, RandomTile, batches, encode, validation_batches
from cellvit_jax.data.targets import hv_map, regression_map
from cellvit_jax.errors import InputError

PUBLISHED = Augmentation.published()


def tiles(**changes) -> RandomTile:
    samples = [field(), field(typed=False), dataclasses.replace(field(), tissue=None)]
    shares = np.array([0.5, 0.3, 0.2])
    return dataclasses.replace(RandomTile(samples, shares, tile=32), **changes)


def take(count: int, batch_size: int = 4, **options) -> list[dict[str, np.ndarray]]:
    stream = batches(options.pop("tiles", tiles()), batch_size, **options)
    taken = list(islice(stream, count))
    stream.close()
    return taken


def assert_equal(expected, found) -> None:
    for one, other in zip(expected, found, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(other[name], one[name])


def test_a_batch_has_every_array_of_a_step():
    (batch,) = take(1, seed=0)
    shapes = {name: (value.shape, value.dtype.name) for name, value in batch.items()}
    assert shapes == {
        "image": ((4, 32, 32, 3), "uint8"),
        "nuclei": ((4, 32, 32), "bool"),
        "hv": ((4, 32, 32, 2), "float32"),
        "types": ((4, 32, 32), "uint8"),
        "typed": ((4,), "float32"),
        "tissue": ((4,), "int32"),
    }


def test_the_regression_map_is_there_on_request():
    (batch,) = take(1, seed=0, tiles=tiles(regression=True))
    assert (batch["regression"].shape, batch["regression"].dtype) == ((4, 32, 32, 2), np.float32)


def test_a_stream_may_start_at_any_step():
    assert_equal(take(4, seed=3)[2:], take(2, seed=3, start=2))


def test_seeds_and_steps_differ():
    first, second = take(2, seed=0)
    assert (first["image"] != second["image"]).any()
    assert (first["image"] != take(1, seed=1)[0]["image"]).any()


@pytest.mark.parametrize("options", [{"threads": 1}, {"threads": 5}, {"workers": 2}])
def test_threads_and_worker_processes_change_nothing(options):
    published = tiles(augmentation=PUBLISHED)
    expected = take(5, seed=1, start=2, tiles=published)
    assert_equal(expected, take(5, seed=1, start=2, tiles=published, **options))


@pytest.mark.parametrize("count", [2, 4])
def test_processes_together_make_the_batch_of_one(count):
    options = {"seed": 2, "start": 3, "tiles": tiles(augmentation=PUBLISHED)}
    parts = [take(3, 8, shard=(index, count), **options) for index in range(count)]
    joined = [
        {name: np.concatenate([part[name] for part in step]) for name in step[0]}
        for step in zip(*parts, strict=True)
    ]
    assert_equal(take(3, 8, **options), joined)


def test_a_stream_kept_by_orbax_goes_on_in_any_number_of_processes(tmp_path):
    stream = batches(tiles(), 4, seed=5)
    expected = list(islice(stream, 3))
    stream.set_state({"step": 2})
    ocp.save_checkpointables(tmp_path / "kept", {"batches": stream})
    assert_equal(expected[2:], [next(stream)])
    half = batches(tiles(), 4, seed=5, shard=(1, 2))
    ocp.load_checkpointables(tmp_path / "kept", {"batches": half})
    assert half.get_state() == {"step": 2}
    np.testing.assert_array_equal(next(half)["image"], expected[2]["image"][2:])


def test_fields_are_drawn_by_their_weights():
    drawn = take(60, 8, seed=0)
    assert np.mean([batch["typed"] for batch in drawn]) == pytest.approx(0.7, abs=0.06)
    assert np.mean([batch["tissue"] < 0 for batch in drawn]) == pytest.approx(0.2, abs=0.06)
    only = tiles(weights=np.array([0.0, 2.0, 0.0]))
    assert not any(batch["typed"].any() for batch in take(4, seed=0, tiles=only))


def test_targets_are_made_of_the_sample():
    sample = field()
    stray = dataclasses.replace(sample, types=np.where(sample.types > 0, sample.types, 2))
    encoded = encode(stray, regression=True)
    np.testing.assert_array_equal(encoded["hv"], hv_map(sample.instances))
    np.testing.assert_array_equal(encoded["regression"], regression_map(sample.instances))
    # a type without a nucleus would be one that the binary map denies
    np.testing.assert_array_equal(encoded["types"], sample.types)
    assert (encoded["typed"], encoded["tissue"]) == (1, 3)
    assert encode(field(typed=False))["typed"] == 0


@pytest.mark.parametrize("seed", range(4))
def test_targets_are_made_after_a_tile_was_cropped_and_warped(seed):
    def drawn(augmentation: Augmentation) -> dict[str, np.ndarray]:
        only = {"samples": [field()], "weights": np.ones(1)}
        maker = tiles(tile=64, augmentation=augmentation, regression=True, **only)
        return maker.random_map(None, np.random.default_rng(seed))

    moved, still = drawn(Augmentation(crop=1.0, elastic=1.0)), drawn(Augmentation.none())
    assert (moved["nuclei"] != still["nuclei"]).mean() > 0.05
    # the discs of the field touch nowhere
    _, instances = cv2.connectedComponents(moved["nuclei"].astype(np.uint8), connectivity=8)
    assert instances.max() > 1
    assert aligned(Sample("moved", moved["image"], instances, moved["types"])) > 0.9
    np.testing.assert_array_equal(moved["hv"], hv_map(instances))
    np.testing.assert_array_equal(moved["regression"], regression_map(instances))


def test_validation_covers_every_pixel_in_order_with_one_shape():
    every = EveryTile([field(), field(40, 24, typed=False), field(32, 32)], tile=32)
    found = list(validation_batches(every, 8))
    assert [len(batch["valid"]) for batch in found] == [8, 8]
    # 3 x 4 windows, then two of a field that is too narrow, then one
    assert np.concatenate([batch["valid"] for batch in found]).tolist() == [1.0] * 15 + [0.0]
    images = np.concatenate([batch["image"] for batch in found])
    whole = images[:12].reshape(3, 4, 32, 32, 3).swapaxes(1, 2).reshape(96, 128, 3)
    np.testing.assert_array_equal(whole, field().image)
    np.testing.assert_array_equal(images[13, :, :24], field(40, 24).image[8:])
    assert not images[15].any()


@pytest.mark.parametrize("count", [2, 4])
def test_validation_is_divided_evenly(count):
    every = EveryTile([field()] * 3, tile=64)  # 12 windows
    whole = list(validation_batches(every, 8))
    parts = [list(validation_batches(every, 8, shard=(i, count))) for i in range(count)]
    assert {len(part) for part in parts} == {2}
    joined = np.concatenate([part[1]["image"] for part in parts])
    np.testing.assert_array_equal(joined, whole[1]["image"])


def test_parts_of_different_sizes_are_named():
    wrong = dataclasses.replace(field(), types=np.zeros((5, 5), np.uint8))
    with pytest.raises(InputError, match=r"made has parts of different sizes: .*types \(5, 5\)"):
        take(1, seed=0, tiles=tiles(samples=[wrong] * 3))


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(InputError, match="a batch of 6 cannot be divided among 4"):
        batches(tiles(), 6, seed=0, shard=(0, 4))


@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.0, 0.0, 0.0], [np.nan, 1.0, 1.0]])
def test_weights_that_do_not_fit_the_fields_are_refused(weights):
    with pytest.raises(InputError, match="3 fields need as many weights"):
        tiles(weights=np.array(weights))
