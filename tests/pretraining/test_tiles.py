"""Where tiles lie: on images everywhere, on slides in tissue; and what is held of them."""

import pickle
from functools import partial

import cv2
import numpy as np
import pytest

pytest.importorskip("grain")

from cellvit_jax.errors import InputError
from cellvit_jax.pretraining.held import Held
from cellvit_jax.pretraining.tiles import Picture, find
from cellvit_jax.slides import Resampled, open_image
from tests.shared import shared


def image(height: int, width: int, mpp: float | None = None):
    """An image whose pixels say where they are."""
    rows, cols = np.mgrid[:height, :width]
    pixels = np.stack([rows, cols, 0 * rows], axis=-1) % 256
    return open_image(pixels.astype(np.uint8), mpp=mpp)


class Scanned:
    """An image that is read as a slide is."""

    def __init__(self, pixels: np.ndarray, mpp: float | None):
        self._image = open_image(pixels)
        self.name, self.mpp = "scanned", mpp
        self.size, self.bounds = self._image.size, self._image.bounds
        self.downsamples, self.read = (1.0,), self._image.read


def test_tiles_cover_an_image_evenly():
    tiles, small = find(
        [Picture("a", partial(image, 96, 70)), Picture("b", partial(image, 31, 90))], 32, 0.25
    )
    assert small == 1
    assert tiles.places.tolist() == [[0, r, c] for r in (0, 32, 64) for c in (0, 19, 38)]
    assert len(tiles) == 9
    for index in range(len(tiles)):
        assert tiles[index].shape == (32, 32, 3)
        assert tiles[index][0, 0, :2].tolist() == tiles.places[index, 1:].tolist()


def test_tiles_are_at_one_resolution():
    coarse = Picture("a", partial(image, 64, 64, 0.5))
    tiles, _ = find([coarse, Picture("b", partial(image, 64, 64))], 64, 0.25)
    assert tiles.places[:, 0].tolist() == [0] * 4 + [1]


def test_of_a_slide_it_is_tissue_alone():
    pixels = np.full((1024, 1024, 3), 243, np.uint8)
    cv2.circle(pixels, (256, 256), 200, (225, 170, 205), -1)
    slide = Picture("a", lambda: Scanned(pixels, 0.5))
    tiles, _ = find([slide], 128, 0.5)
    centres = tiles.places[:, 1:] + 64
    distance = np.hypot(*(centres - 256).T)
    assert 4 <= len(tiles) < 30
    assert (distance < 300).all()
    assert {tuple(place) for place in tiles.places[:, 1:].tolist()} >= {(128, 128), (256, 256)}


def test_a_slide_without_tissue_has_no_tiles():
    glass = Picture("glass", lambda: Scanned(np.full((512, 512, 3), 243, np.uint8), 0.5))
    with pytest.raises(InputError, match="no tiles in glass: they show no tissue"):
        find([glass], 128, 0.5)


def test_a_slide_that_does_not_say_its_resolution_is_one_sentence():
    with pytest.raises(InputError, match="scanned does not say its resolution"):
        find([Picture("a", lambda: Scanned(np.zeros((512, 512, 3), np.uint8), None))], 128, 0.5)


def test_images_smaller_than_a_tile_are_one_sentence():
    few = [Picture(name, partial(image, 255, 300)) for name in "abcde"]
    with pytest.raises(InputError, match="a, b, c and 2 more: all are smaller than 256×256 pixels"):
        find(few, 256, 0.25)


def test_a_real_slide_is_cut_where_it_has_tissue():
    from cellvit_jax.slides import open_slide

    path = shared("data/wsi/CMU-1-Small-Region.svs")
    tiles, _ = find([Picture("cmu", partial(open_slide, path))], 256, 0.5)
    assert 20 < len(tiles) < 12 * 9
    assert np.ptp(tiles[0].astype(int)) > 50


def test_tiles_are_chosen_and_labelled_by_their_pictures():
    pictures = [Picture(str(i), partial(image, 64, 32), label=2 - i) for i in range(3)]
    tiles, _ = find(pictures, 32, 0.25)
    assert tiles.labels.tolist() == [2, 2, 1, 1, 0, 0]
    assert tiles.of(np.array([True, False, True])).labels.tolist() == [2, 2, 0, 0]
    assert tiles.at_most(2).labels.tolist() == [2, 0]
    assert len(tiles.at_most(99)) == 6


def test_what_is_held_stays_under_a_limit():
    opened = []

    def view(name: str) -> Resampled:
        opened.append(name)
        return Resampled(image(16, 16), 1.0)  # 768 bytes

    held: Held[str] = Held(1700)
    for name in "abacab":
        held(name, partial(view, name))
    assert opened == list("abcb")  # b was unused for longest when c came
    again = pickle.loads(pickle.dumps(held))
    again("a", partial(view, "a"))
    assert opened == list("abcba")


def test_workers_get_tiles_without_their_pixels():
    tiles, _ = find([Picture("a", partial(image, 96, 96))], 32, 0.25)
    before = len(pickle.dumps(tiles))
    first = tiles[0]
    assert len(pickle.dumps(tiles)) == before
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(tiles))[0], first)
