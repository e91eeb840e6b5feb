"""Annotated cells and the detected ones that they are."""

import numpy as np
import pytest

from cellvit_jax.data.dataset import Dataset, Sample
from cellvit_jax.errors import InputError
from cellvit_jax.heads.detect import Detected
from cellvit_jax.heads.pairs import gather, match_masks, matched

EMPTY = np.zeros((40, 40), np.int32)


def detected(centroids, tokens=None, instances=EMPTY) -> Detected:
    points = np.array(centroids, float).reshape(-1, 2)
    tokens = np.arange(len(points) * 3.0).reshape(-1, 3) if tokens is None else tokens
    return Detected(points, np.float32(tokens), np.ones(len(points), int), instances)


def pointed(points) -> Sample:
    image = np.zeros((40, 40, 3), np.uint8)
    return Sample("field", image, EMPTY, None, points=np.float32(points).reshape(-1, 3))


def test_points_take_what_is_near():
    sample = pointed([(10, 10, 2), (30, 30, 1), (11, 10, 1)])
    kinds, places = matched(sample, detected([(30, 27), (10, 10)]), radius=2.5)
    assert kinds.tolist() == [2, 1, 1]
    assert places.tolist() == [1, -1, -1]


def test_masks_pair_by_more_than_half_of_their_union():
    rng = np.random.default_rng(0)
    true, pred = (np.repeat(np.repeat(rng.integers(0, 5, (9, 9)), 4, 0), 4, 1) for _ in range(2))
    pred[:20] = np.roll(true[:20], 1, 1) * 3  # ids with gaps
    ids = [np.unique(inst[inst > 0]) for inst in (true, pred)]
    expected = [
        (i, j)
        for i, t in enumerate(ids[0])
        for j, p in enumerate(ids[1])
        if ((true == t) & (pred == p)).sum() > 0.5 * ((true == t) | (pred == p)).sum()
    ]
    assert list(zip(*map(np.ndarray.tolist, match_masks(true, pred)), strict=True)) == expected


def test_fields_without_cells_and_tokens_that_are_no_numbers():
    samples = [
        pointed([]),
        pointed([(5, 5, 1), (20, 20, 2), (9, 9, 0)]),
        pointed([(5, 5, 1)]),
    ]
    answers = iter(
        [
            detected([(3, 3)]),
            detected([(5, 5), (20, 20), (9, 9)], [[1, 2, 3], [np.nan, 0, 0], [4, 5, 6]]),
            detected([], np.zeros((0, 3))),
        ]
    )
    dataset = Dataset("clicks", samples, ("A", "B"), outlined=False)
    cells = gather(dataset, "all", lambda *_: next(answers))
    assert cells.tokens.tolist() == [[1, 2, 3]]
    assert (cells.labels.tolist(), cells.fields.tolist()) == ([0], [1])
    assert (cells.annotated.tolist(), cells.counts.tolist()) == ([2, 1], [1, 0])


@pytest.mark.parametrize(("mpp", "inside", "outside"), [(0.25, 11.9, 12.1), (0.5, 5.9, 6.1)])
def test_points_take_what_is_within_3_micrometres(mpp, inside, outside):
    clicks = Dataset("clicks", [pointed([(20, 5, 1), (20, 35, 2)])], ("A", "B"), mpp=mpp)
    found = detected([(20 + inside, 5), (20, 35 - outside)])
    cells = gather(clicks, "all", lambda *_: found)
    assert (cells.labels.tolist(), cells.annotated.tolist()) == ([0], [1, 1])


def test_outlines_without_types_are_refused():
    sample = Sample("field", np.zeros((40, 40, 3), np.uint8), EMPTY, None)
    with pytest.raises(InputError, match="no types"):
        matched(sample, detected([]), 3.0)
