"""Masks of what is pointed at: geometry, batches, and one sentence for every bad prompt."""

import cv2
import jax
import numpy as np
import pytest

from cellvit_jax.errors import InputError
from cellvit_jax.inference import PromptPredictor
from cellvit_jax.inference.frame import Frame
from cellvit_jax.models import Sam
from tests.networks import small_sam, small_sam_config

SIDE = 64
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 100, 3), np.uint8)
POINTS = [[30.0, 20.0], [80.0, 5.0]]
BOXES = np.array([[10, 5, 40, 30], [50, 2, 99, 39], [0, 0, 20, 20]], float)


@pytest.fixture(scope="module")
def predictor() -> PromptPredictor:
    made = PromptPredictor(small_sam(), batch_size=2)
    made.set_image(IMAGE)
    return made


def frame(height: int, width: int, kind: str = "sam") -> Frame:
    return Frame.of(height, width, small_sam_config(architecture=kind))


def test_an_image_of_the_networks_size_is_seen_as_it_is():
    image = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    model = small_sam()
    predictor = PromptPredictor(model)
    predictor.set_image(image)
    found = predictor.predict(points=POINTS[:1], multimask=True)
    pixels = (image / np.float32(255) - np.float32(model.card.mean)) / np.float32(model.card.std)
    points = np.array([[*POINTS[:1], [0, 0]]])
    expected = jax.jit(Sam.__call__)(model, pixels[None], points, np.array([[1, -1]]))
    logits = np.moveaxis(np.asarray(expected.logits[0, ..., 1:]), -1, 0)
    np.testing.assert_allclose(found.logits[0], logits, atol=1e-3)
    np.testing.assert_allclose(found.scores[0], expected.iou[0, 1:], atol=1e-4)
    large = np.stack([cv2.resize(x, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR) for x in logits])
    sure = np.abs(large) > 1e-2
    np.testing.assert_array_equal(found.masks[0][sure], large[sure] > 0)


@pytest.mark.parametrize("size", [(40, 100), (300, 64), (64, 64), (17, 16)])
@pytest.mark.parametrize("kind", ["sam", "sam_med2d"])
def test_masks_are_enlarged_as_opencv_does_it(size, kind):
    inside = frame(*size, kind)
    logits = np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32)
    square = cv2.resize(logits, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    seen = square[: inside.rows, : inside.columns]
    expected = cv2.resize(seen, size[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(inside.enlarged(logits), expected, atol=1e-5)
    part = inside.enlarged(logits, slice(3, 9), slice(5, 16))
    np.testing.assert_allclose(part, expected[3:9, 5:16], atol=1e-5)


def test_sam_pads_and_sam_med2d_stretches():
    padded, stretched = frame(40, 100), frame(40, 100, "sam_med2d")
    assert (padded.rows, padded.columns) == (26, 64)
    assert not padded.pixels(IMAGE)[26:].any()
    assert (stretched.rows, stretched.columns) == (64, 64)
    np.testing.assert_allclose(padded.points(np.array([100, 40])), [64, 26])
    np.testing.assert_allclose(stretched.points(np.array([100, 40])), [64, 64])


def test_padding_is_zero_after_the_normalisation(predictor):
    white = np.full((40, 100, 3), 255, np.uint8)
    square = predictor.frame.pixels(white)
    embedded = predictor._embed(predictor._state, square, np.array([26, 64]))
    square[26:] = 77  # whatever lies beyond the image
    np.testing.assert_array_equal(
        predictor._embed(predictor._state, square, np.array([26, 64])), embedded
    )


def test_many_boxes_are_what_each_is_alone(predictor):
    together = predictor.predict(boxes=BOXES)
    assert together.masks.shape == (3, 1, 40, 100)
    assert together.masks.dtype == bool
    for i, box in enumerate(BOXES):
        alone = predictor.predict(boxes=box)
        np.testing.assert_allclose(alone.logits[0], together.logits[i], atol=1e-3)
        np.testing.assert_allclose(alone.scores[0], together.scores[i], atol=1e-4)


def test_boxes_run_in_one_compiled_shape(predictor):
    before = predictor._decode._cache_size()
    for count in (2, 3, 5):
        predictor.answer(boxes=np.resize(BOXES, (count, 4)))
    assert predictor._decode._cache_size() <= before + 1


def test_points_box_and_an_earlier_answer_go_together(predictor):
    first = predictor.predict(points=POINTS, labels=[1, 0], boxes=BOXES[0])
    again = predictor.predict(points=POINTS, labels=[1, 0], boxes=BOXES[0], mask=first.logits[0, 0])
    drawn = predictor.predict(mask=first.masks[0, 0])
    assert first.masks.shape == again.masks.shape == drawn.masks.shape == (1, 1, 40, 100)
    assert np.abs(again.logits - first.logits).max() > 1e-3
    others = predictor.predict(points=POINTS, labels=[1, 1], boxes=BOXES[0])
    assert np.abs(others.logits - first.logits).max() > 1e-3


def test_a_drawn_mask_becomes_logits_where_it_is(predictor):
    mask = np.zeros((40, 100), bool)
    mask[:, 50:] = True
    logits = predictor.frame.logits(mask)
    assert (logits[:6, 9:] > 7).all()
    assert (logits[:6, :7] < -7).all()
    assert (logits[7:] < -7).all()


BAD = {
    "nothing": ({}, "give points, boxes or a mask"),
    "outside": ({"points": [[100, 3]]}, "point 100,3 lies outside of the image, which is 100 × 40"),
    "shape": ({"points": [1, 2, 3]}, r"pairs x, y: an array \(N, 2\)"),
    "text": ({"points": [["a", "b"]]}, "points must be numbers"),
    "nan": ({"points": [[np.nan, 1]]}, "finite numbers"),
    "labels": ({"points": POINTS, "labels": [1]}, "2 points have 2 labels"),
    "label": ({"points": POINTS, "labels": [1, 2]}, "2 points have 2 labels"),
    "alone": ({"labels": [1]}, "labels belong to points"),
    "turned": ({"boxes": [30, 20, 10, 30]}, "top left to its bottom right"),
    "beyond": ({"boxes": [0, 0, 101, 20]}, "inside the image of 100 × 40"),
    "box": ({"boxes": [1, 2]}, r"an array \(4,\) or \(P, 4\)"),
    "several": ({"boxes": BOXES, "points": POINTS}, "points go with one box, not with 3"),
    "masks": ({"boxes": BOXES, "mask": np.zeros((40, 100), bool)}, "a mask goes with one prompt"),
    "mask": ({"mask": np.zeros((40, 99), bool)}, r"image's shape \(40, 100\), or logits of shape"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_prompt_is_a_sentence(predictor, name):
    arguments, sentence = BAD[name]
    with pytest.raises(InputError, match=sentence):
        predictor.predict(**arguments)


def test_a_prompt_needs_an_image_and_the_image_pixels():
    predictor = PromptPredictor(small_sam())
    with pytest.raises(InputError, match="call set_image first"):
        predictor.predict(points=POINTS)
    with pytest.raises(InputError, match="uint8"):
        predictor.set_image(IMAGE.astype(np.float32))


def test_other_networks_are_refused():
    with pytest.raises(InputError, match="prompts need a SAM"):
        PromptPredictor(object())
    with pytest.raises(InputError, match="batch size must be 1 or more"):
        PromptPredictor(small_sam(), batch_size=0)
