"""Where to look: coloured areas, what people drew, rectangles."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from cellvit_jax import zoo
from cellvit_jax.errors import InputError
from cellvit_jax.slides import ImageSlide, grid, open_image, tissue

GLASS, PINK = (243, 243, 243), (225, 170, 205)


@pytest.fixture(scope="module")
def slide():
    """3 mm of glass with a disc of tissue, 1 mm across, in its upper left, and a speck of dust."""
    pixels = np.full((3000, 3000, 3), GLASS, np.uint8)
    cv2.circle(pixels, (900, 900), 500, PINK, -1)
    cv2.circle(pixels, (2500, 500), 8, PINK, -1)
    noise = np.random.default_rng(0).integers(-4, 5, pixels.shape)
    return ImageSlide("disc", (pixels + noise).astype(np.uint8), 1.0)


def test_tissue_is_found_with_a_rim_and_without_dust(slide):
    mask = tissue.find(slide, 1.0, "otsu")
    y, x = (np.indices(mask.pixels.shape) + 0.5) / mask.factor
    distance = np.hypot(y - 900, x - 900)
    assert mask.pixels[distance < 500].all()
    assert not mask.pixels[distance > 560].any()


def test_an_image_that_is_all_tissue_is_looked_at_whole():
    """Otsu's method always divides: here there is nothing to divide."""
    image = open_image(zoo.ASSETS / "he-consep.png")
    assert tissue.find(image, 0.25, "otsu").share > 0.98


def test_glass_alone_is_nothing(slide):
    glass = ImageSlide("glass", slide.pixels[2000:, 2000:], 1.0)
    assert tissue.find(glass, 1.0, "otsu").share == 0


def test_none_is_everything(slide):
    assert tissue.find(slide, 1.0, "none").share == 1


def test_only_tiles_with_tissue_in_their_core_are_wanted(slide):
    mask = tissue.find(slide, 1.0, "otsu")
    tiles = grid((6000, 6000), 256, 32)
    wanted = mask.tiles(tiles, 2.0)
    for place in np.ndindex(tiles.shape):
        (r0, c0), (r1, c1) = tiles[place].core
        nearest = np.hypot(*(np.clip(1800, a, b) - 1800 for a, b in ((r0, r1), (c0, c1))))
        if nearest < 1000:
            assert wanted[place]
        elif nearest > 1130:
            assert not wanted[place]


def test_a_drawn_png_has_the_slides_extent_at_any_size(slide, tmp_path):
    drawn = np.zeros((30, 60), np.uint8)
    drawn[:15, 30:] = 255
    Image.fromarray(drawn).save(tmp_path / "mask.png")
    mask = tissue.find(slide, 1.0, str(tmp_path / "mask.png"))
    assert mask.sharp
    x, y = np.array([10, 1600, 2990, 1600]), np.array([10, 10, 1490, 1510])
    assert mask.holds(x, y).tolist() == [False, True, True, False]


SQUARE = [[[100, 200], [1100, 200], [1100, 1200], [100, 1200], [100, 200]]]
HOLE = [[400, 500], [800, 500], [800, 900], [400, 900], [400, 500]]
POLYGON = {"type": "Polygon", "coordinates": [*SQUARE, HOLE]}
GEOJSONS = {
    "polygon": POLYGON,
    "feature": {"type": "Feature", "properties": {}, "geometry": POLYGON},
    "collection": {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "properties": {}, "geometry": POLYGON}],
    },
    "list": [{"type": "Feature", "properties": {}, "geometry": POLYGON}],
    "multi": {"type": "MultiPolygon", "coordinates": [POLYGON["coordinates"]]},
}


@pytest.mark.parametrize("kind", GEOJSONS)
def test_a_drawn_geojson_is_in_full_resolution_pixels(slide, tmp_path, kind):
    path = tmp_path / "mask.geojson"
    path.write_text(json.dumps(GEOJSONS[kind]))
    mask = tissue.find(slide, 1.0, str(path))
    x, y = np.array([90, 120, 1090, 600, 1110]), np.array([300, 220, 1190, 700, 300])
    assert mask.holds(x, y).tolist() == [False, True, True, False, False]
    assert mask.share == pytest.approx((1000**2 - 400**2) / 3000**2, rel=0.02)


@pytest.mark.parametrize("content", ["[]", "no json", '{"type": "Point", "coordinates": [1, 2]}'])
def test_a_mask_that_is_none_is_an_error(slide, tmp_path, content):
    path = tmp_path / "mask.geojson"
    path.write_text(content)
    with pytest.raises(InputError, match="no PNG and no GeoJSON"):
        tissue.find(slide, 1.0, str(path))


def test_a_word_that_is_no_mask_says_what_may_be_given(slide):
    with pytest.raises(InputError, match='"otsu", "none"'):
        tissue.find(slide, 1.0, "osu")


def test_a_rectangle_of_the_slide(slide):
    mask = tissue.find(slide, 1.0, "none", tissue.parse_roi("100,200,300,400"))
    rows, cols = np.nonzero(mask.pixels)
    extent = [rows.min(), cols.min(), rows.max() + 1, cols.max() + 1] / np.float64(mask.factor)
    np.testing.assert_allclose(extent, (200, 100, 600, 400), atol=4)


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "0.5,1,2,3", ""])
def test_a_rectangle_has_four_whole_numbers(text):
    with pytest.raises(InputError, match="x,y,width,height"):
        tissue.parse_roi(text)


@pytest.mark.parametrize("text", ["-1,0,10,10", "0,0,0,10", "2995,0,10,10"])
def test_a_rectangle_lies_in_the_slide(slide, text):
    with pytest.raises(InputError, match="does not lie in"):
        tissue.find(slide, 1.0, "none", tissue.parse_roi(text))
