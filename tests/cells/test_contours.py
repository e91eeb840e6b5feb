import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cellvit_jax.cells.contours import contours
from cellvit_jax.cells.watershed import renumber


def labelled(rng, shape, count, density):
    """Blocky random labels: pieces, holes, islands in holes, single pixels, diagonal contacts."""
    coarse = rng.integers(1, count + 1, (-(-shape[0] // 3), -(-shape[1] // 3)))
    labels = np.kron(coarse, np.ones((3, 3), int))[: shape[0], : shape[1]].astype(np.int32)
    labels[rng.random(shape) > density] = 0
    renumber(labels, count)
    return labels


def boxes_of(labels):
    where = [np.argwhere(labels == i) for i in range(1, labels.max() + 1)]
    corners = [np.concatenate([w.min(0), w.max(0) + 1]) for w in where]
    return np.array(corners, np.int32).reshape(-1, 4)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 6),
    st.floats(0.1, 1),
)
def test_as_opencv(seed, height, width, count, density):
    labels = labelled(np.random.default_rng(seed), (height, width), count, density)
    points, offsets = contours(labels, boxes_of(labels))
    assert len(offsets) == labels.max() + 1
    for i in range(labels.max()):
        mask = (labels == i + 1).astype(np.uint8)
        expected, _ = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        np.testing.assert_array_equal(points[offsets[i] : offsets[i + 1]], expected[0][:, 0])


def test_nothing():
    points, offsets = contours(np.zeros((5, 5), np.int32), np.zeros((0, 4), np.int32))
    assert points.shape == (0, 2)
    assert offsets.tolist() == [0]
