"""Views of tiles: their sizes, their differences, their place in a stream."""

import numpy as np
import pytest

pytest.importorskip("grain")

from cellvit_jax.data.augment import Augmentation
from cellvit_jax.data.pipeline import batches
from cellvit_jax.errors import InputError
from cellvit_jax.pretraining.tiles import Picture, find
from cellvit_jax.pretraining.views import Crops, Views, stained
from cellvit_jax.slides import open_slide

CROPS = {
    "whole": Crops(count=2, side=32, smallest=0.5),
    "parts": Crops(count=3, side=16, smallest=0.2, largest=0.4),
}


def tiles(labelled: bool = False):
    def picture(number: int) -> Picture:
        pixels = np.random.default_rng(number).integers(0, 256, (96, 64, 3), np.uint8)
        return Picture(str(number), lambda: open_slide(pixels), number if labelled else None)

    return find([picture(number) for number in range(3)], 32, 0.25)[0]


def test_views_have_their_sizes_and_differ():
    views = Views(tiles(labelled=True), CROPS, stained())
    found = views.random_map(7, np.random.default_rng(0))
    shapes = {name: (value.shape, value.dtype.name) for name, value in found.items()}
    assert shapes == {
        "whole": ((2, 32, 32, 3), "uint8"),
        "parts": ((3, 16, 16, 3), "uint8"),
        "label": ((), "int32"),
    }
    assert found["label"] == 1
    assert not np.array_equal(*found["whole"])


def test_a_crop_is_a_square_of_its_tile():
    ramp = np.zeros((64, 64, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(64)[:, None] * 4, np.arange(64) * 4
    crops = Crops(count=50, side=16, smallest=0.25, largest=0.5)
    for view in crops(ramp, Augmentation.none(), np.random.default_rng(0)).astype(float):
        down, across = np.ptp(view[..., 0]) / 4, np.ptp(view[..., 1]) / 4
        assert 14 <= down <= 32
        assert abs(down - across) <= 1.5


def test_crops_of_everything_are_the_tile():
    tile = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    found = Crops(count=1, side=32, smallest=1.0)(
        tile, Augmentation.none(), np.random.default_rng()
    )
    np.testing.assert_array_equal(found[0], tile)


def test_an_epoch_has_every_tile_once_and_no_batch_one_twice():
    stream = batches(Numbers(), 4, seed=1, count=10)
    rounds = [next(stream)["number"] for _ in range(6)]
    stream.close()
    for epoch in (rounds[:2], rounds[2:4], rounds[4:]):
        assert len(set(np.concatenate(epoch))) == 8
    assert not np.array_equal(rounds[0], rounds[2])


def test_a_stream_is_the_same_from_any_step_and_in_any_number_of_processes():
    views = Views(tiles(), CROPS, stained())
    whole = batches(views, 6, seed=1, count=len(views.tiles))
    expected = [next(whole) for _ in range(4)]
    late = batches(views, 6, seed=1, count=len(views.tiles), start=3)
    halves = [batches(views, 6, seed=1, count=len(views.tiles), shard=(i, 2)) for i in (0, 1)]
    both = [next(half) for half in halves]
    found = {"late": next(late), "joined": {k: np.concatenate([b[k] for b in both]) for k in CROPS}}
    for stream in (whole, late, *halves):
        stream.close()
    for name in CROPS:
        np.testing.assert_array_equal(found["late"][name], expected[3][name])
        np.testing.assert_array_equal(found["joined"][name], expected[0][name])


@pytest.mark.parametrize(
    "values", [{"count": 0}, {"smallest": 0.0}, {"smallest": 0.9, "largest": 0.8}, {"largest": 1.5}]
)
def test_crops_that_are_none_are_one_sentence(values):
    with pytest.raises(InputError, match="crops must be one or more, with 0 < smallest"):
        Crops(**({"count": 2, "side": 16, "smallest": 0.5} | values))


class Numbers(Views):
    """The number of a tile is all that is seen of it."""

    def __init__(self):
        super().__init__(tiles(), {}, Augmentation.none())

    def random_map(self, element, rng):
        return {"number": np.asarray(element)}
