"""Interactive segmentation: an image once, then masks for points, boxes and rough masks."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

from cellvit_jax.errors import InputError
from cellvit_jax.inference.frame import Frame
from cellvit_jax.models import Sam
from cellvit_jax.models.prompt_encoder import FIRST_CORNER, LAST_CORNER, NO_POINT
from cellvit_jax.slides import open_image

BATCH_SIZE = 16
SINGLE, SEVERAL = slice(0, 1), slice(1, 4)  # which of the network's masks are asked for


class Prediction(NamedTuple):
    """K masks for each of P prompts: `masks` bool (P,K,H,W) in the image's pixels.

    `scores` (P,K) are the network's own estimates of their quality (IoU); `logits` (P,K,s,s) are
    the low-resolution answers, which `predict` takes as `mask` to improve on them.
    """

    masks: np.ndarray
    scores: np.ndarray
    logits: np.ndarray


class PromptPredictor:
    """Masks of whatever is pointed at, by a SAM or SAM-Med2D that `cellvit_jax.load` returned.

    Many boxes run in batches of `batch_size`, of one compiled shape. Raises `InputError` for
    another network.
    """

    def __init__(self, model: Sam, *, batch_size: int = BATCH_SIZE):
        if not isinstance(model, Sam):
            raise InputError("prompts need a SAM or SAM-Med2D: convert one with cellvit-convert")
        if model.card is None:
            raise InputError("this model has no card; use one that cellvit_jax.load returned")
        if batch_size < 1:
            raise InputError(f"the batch size must be 1 or more, not {batch_size}")
        self.config, self.batch_size = model.config, batch_size
        self.frame: Frame | None = None
        # a pure dictionary under a closed-over graph is the cheapest call there is
        graphdef, state = nnx.split(model)
        self._state = jax.device_put(nnx.to_pure_dict(state))
        mean, std = (np.array(c, np.float32) for c in (model.card.mean, model.card.std))
        self._embed = jax.jit(partial(_embed, graphdef, mean, std))
        self._decode = jax.jit(partial(_decode, graphdef))

    def set_image(self, image: npt.NDArray[np.uint8]) -> None:
        """Embed an image, uint8 (H,W,3) RGB, which all prompts that follow are about."""
        image = open_image(image).pixels
        frame = Frame.of(image.shape[0], image.shape[1], self.config)
        extent = np.array([frame.rows, frame.columns])
        self._embedded = self._embed(
            self._state, *map(jax.device_put, (frame.pixels(image), extent))
        )
        self.frame = frame

    def predict(
        self,
        *,
        points: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        boxes: npt.ArrayLike | None = None,
        mask: np.ndarray | None = None,
        multimask: bool = False,
    ) -> Prediction:
        """Masks for prompts in the image's own pixels, whose centres have whole numbers.

        `points` (N,2), x then y, are one prompt, together with their `labels` (N,), 1 on the object
        (taken where none are given) and 0 beside it. `boxes` (4,) or (P,4) are x0, y0, x1, y1, each
        a prompt of its own; a single one goes together with points. `mask` is a rough mask to start
        from, bool (H,W) or logits of an earlier answer; it goes with at most one box. With
        `multimask` three masks are given for a prompt that can mean several things, else the one.
        Raises `InputError` for prompts that cannot be used, or without an image.
        """
        logits, scores = self.answer(
            points=points, labels=labels, boxes=boxes, mask=mask, multimask=multimask
        )
        assert self.frame is not None, "or there was no answer"
        masks = np.zeros((*scores.shape, self.frame.height, self.frame.width), bool)
        for index in np.ndindex(scores.shape):  # one by one: floats are four times as large
            masks[index] = self.frame.enlarged(logits[index]) > 0
        return Prediction(masks, scores, logits)

    def answer(
        self,
        *,
        points: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        boxes: npt.ArrayLike | None = None,
        mask: np.ndarray | None = None,
        multimask: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The `logits` and `scores` of `predict` alone; `frame.enlarged` makes masks of these."""
        if self.frame is None:
            raise InputError("there is no image yet: call set_image first")
        places, kinds = prompts(self.frame, points, labels, boxes, with_mask=mask is not None)
        rough = None if mask is None else rough_mask(self.frame, mask, len(places))
        part = SEVERAL if multimask else SINGLE
        size = 1 if len(places) == 1 else self.batch_size
        found = [
            self._run(places[i : i + size], kinds[i : i + size], rough, size, part)
            for i in range(0, len(places), size)
        ]
        logits, scores = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        return logits, scores

    def _run(self, places, kinds, rough, size, part):
        count = len(places)
        padding = ((0, size - count), (0, 0))
        batch = np.pad(places, (*padding, (0, 0))), np.pad(kinds, padding), rough
        logits, scores = self._decode(self._state, self._embedded, *jax.device_put(batch))
        return np.asarray(logits[:count, part]), np.asarray(scores[:count, part])


def _embed(graphdef, mean, std, state, pixels, extent):
    normalised = (pixels.astype(jnp.float32) / 255 - mean) / std
    rows, columns = (jnp.arange(n) for n in pixels.shape[:2])
    inside = (rows[:, None] < extent[0]) & (columns[None] < extent[1])
    return nnx.merge(graphdef, state).embed(jnp.where(inside[..., None], normalised, 0)[None])


def _decode(graphdef, state, embedded, places, kinds, rough):
    masks = nnx.merge(graphdef, state).decode(embedded, places, kinds, rough)
    return jnp.moveaxis(masks.logits, -1, 1), masks.iou


def prompts(
    frame: Frame,
    points: npt.ArrayLike | None,
    labels: npt.ArrayLike | None,
    boxes: npt.ArrayLike | None,
    *,
    with_mask: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Points (P,N,2) in the network's image and their kinds (P,N), as the network takes prompts."""
    if labels is not None and points is None:
        raise InputError("labels belong to points, and there are none")
    if points is None and boxes is None and not with_mask:
        raise InputError("give points, boxes or a mask")
    clicks = checked_points(points, frame) if points is not None else np.zeros((0, 2))
    kinds = checked_labels(labels, len(clicks))
    corners = checked_boxes(boxes, frame) if boxes is not None else None
    if corners is not None and len(corners) != 1 and len(clicks):
        raise InputError(f"points go with one box, not with {len(corners)}")
    if corners is None:
        missing = [NO_POINT] if len(clicks) else []  # points alone want one in the box's place
        extra, extra_kinds = np.zeros((1, len(missing), 2)), missing
    else:
        extra, extra_kinds = corners.reshape(-1, 2, 2), [FIRST_CORNER, LAST_CORNER]
    repeated = np.broadcast_to(clicks, (len(extra), *clicks.shape))
    places = frame.points(np.concatenate([repeated, extra], axis=1)).astype(np.float32)
    row = np.concatenate([kinds, extra_kinds]).astype(np.int32)
    return places, np.broadcast_to(row, (len(places), len(row)))


def checked_points(points: npt.ArrayLike, frame: Frame) -> np.ndarray:
    """Points (N,2) inside the image; raises `InputError` for others."""
    array = _numbers(points, "points")
    if array.ndim != 2 or array.shape[1] != 2 or not len(array):
        raise InputError(f"points are pairs x, y: an array (N, 2), not {array.shape}")
    for x, y in array:
        if not (-0.5 <= x <= frame.width - 0.5 and -0.5 <= y <= frame.height - 0.5):
            raise InputError(
                f"the point {x:g},{y:g} lies outside of the image, which is {frame.width} × "
                f"{frame.height} pixels (width × height)"
            )
    return array


def checked_labels(labels: npt.ArrayLike | None, count: int) -> np.ndarray:
    """A label, 0 or 1, for each of the points; raises `InputError` for others."""
    if labels is None:
        return np.ones(count, np.int32)
    array = np.asarray(labels)
    if array.shape != (count,) or not np.isin(array, (0, 1)).all():
        raise InputError(f"{count} points have {count} labels, each 1 (on it) or 0 (beside it)")
    return array.astype(np.int32)


def checked_boxes(boxes: npt.ArrayLike, frame: Frame) -> np.ndarray:
    """Boxes (P,4) that have an area inside the image; raises `InputError` for others."""
    array = np.atleast_2d(_numbers(boxes, "boxes"))
    if array.ndim != 2 or array.shape[1] != 4 or not len(array):
        raise InputError(f"boxes are x0, y0, x1, y1: an array (4,) or (P, 4), not {array.shape}")
    right, bottom = frame.width - 0.5, frame.height - 0.5
    for x0, y0, x1, y1 in array:
        if not (-0.5 <= x0 < x1 <= right + 0.5 and -0.5 <= y0 < y1 <= bottom + 0.5):
            raise InputError(
                f"the box {x0:g},{y0:g},{x1:g},{y1:g} must go from its top left to its bottom "
                f"right corner, inside the image of {frame.width} × {frame.height} pixels"
            )
    return array


def _numbers(values: npt.ArrayLike, what: str) -> np.ndarray:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} must be numbers: {error}") from error
    if not np.isfinite(array).all():
        raise InputError(f"{what} must be finite numbers")
    return array


def rough_mask(frame: Frame, mask: np.ndarray, count: int) -> np.ndarray:
    """Logits (1,s,s) of a mask for one prompt; raises `InputError` for what is no such mask."""
    if count != 1:
        raise InputError(f"a mask goes with one prompt, not with {count} boxes")
    mask, side = np.asarray(mask), frame.side // 4
    if mask.dtype == bool and mask.shape == (frame.height, frame.width):
        return frame.logits(mask)[None]
    if mask.dtype.kind == "f" and mask.shape == (side, side):
        return mask.astype(np.float32)[None]
    raise InputError(
        f"a mask is bool of the image's shape ({frame.height}, {frame.width}), or logits of shape "
        f"({side}, {side}) from an earlier answer, not {mask.dtype} of shape {mask.shape}"
    )
