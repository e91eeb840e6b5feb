import numpy as np
import pytest

from cellvit_jax.cells import extract_cells
from tests.cells.records import boxes, record


@pytest.fixture(scope="module")
def maps():
    return record("crowded-512").maps


def values(column):
    return np.array(column.to_pylist())


def test_probabilities_are_means_over_pixels(maps):
    probabilities = np.random.default_rng(0).random((512, 512, 6), np.float32)
    inst, cells = extract_cells(*maps, probabilities=probabilities)
    expected = [probabilities[inst == i].mean(0, np.float64) for i in range(1, 50)]
    np.testing.assert_allclose(values(cells.table["probabilities"])[:49], expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_probabilities_of_other_precision(maps, dtype):
    ones = np.ones((512, 512, 3), dtype)
    _, cells = extract_cells(*maps, probabilities=ones)
    np.testing.assert_array_equal(values(cells.table["probabilities"]), 1)


def test_probabilities_in_bytes_add_up_to_one(maps):
    exact = np.random.default_rng(0).dirichlet((1, 0.1, 2), (512, 512)).astype(np.float32)
    _, cells = extract_cells(*maps, probabilities=exact)
    _, rounded = extract_cells(*maps, probabilities=np.round(255 * exact).astype(np.uint8))
    found = values(rounded.table["probabilities"])
    np.testing.assert_allclose(found, values(cells.table["probabilities"]), atol=2e-3)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("grid", [(32, 32), (36, 36), (27, 41), (300, 310), (1, 1)])
def test_tokens_are_means_over_touched_token_cells(maps, grid):
    tokens = np.random.default_rng(0).normal(size=(*grid, 5)).astype(np.float32)
    _, cells = extract_cells(*maps, tokens=tokens)
    rows, columns = (np.arange(n + 1) * (512 / n) for n in grid)
    found = values(cells.table["token"])
    for token, (r0, c0, r1, c1) in list(zip(found, boxes(cells), strict=True))[:100]:
        touched_rows = (rows[1:] > r0) & (rows[:-1] < r1)
        touched_columns = (columns[1:] > c0) & (columns[:-1] < c1)
        expected = tokens[touched_rows][:, touched_columns].mean((0, 1))
        np.testing.assert_allclose(token, expected, atol=1e-5)


def test_shapes_and_sums(maps):
    inst, cells = extract_cells(*maps)
    pixels = [np.argwhere(inst == i) for i in range(1, 50)]
    assert cells.column("area")[:49].tolist() == [len(p) for p in pixels]
    np.testing.assert_array_equal(boxes(cells)[:49, :2], [p.min(0) for p in pixels])
    np.testing.assert_array_equal(boxes(cells)[:49, 2:], [p.max(0) + 1 for p in pixels])
    np.testing.assert_allclose(cells.column("centroid_x")[:49], [p[:, 1].mean() for p in pixels])


def square(types_inside):
    """One nucleus of 256 pixels, with the given types, repeated, from its first pixel on."""
    binary = np.zeros((40, 40), np.uint8)
    binary[12:28, 12:28] = 1
    ramp = np.clip((np.arange(40, dtype=np.float32) - 19.5) / 8, -1, 1)
    hv = np.stack(np.broadcast_arrays(ramp, ramp[:, None]), -1) * binary[..., None]
    types = np.zeros((40, 40), np.uint8)
    types[binary > 0] = np.resize(types_inside, 256)
    return binary, hv, types


@pytest.mark.parametrize(
    ("types", "kind", "votes"),
    [
        ([2] * 30 + [1] * 30 + [0] * 4, 1, 30),  # the lower of equals
        ([0] * 50 + [3] * 9 + [2] * 5, 3, 9),  # the runner-up of background
        ([0] * 32 + [2] * 32, 2, 32),
        ([5], 5, 64),
    ],
)
def test_votes(types, kind, votes):
    _, cells = extract_cells(*square(types))
    assert cells.column("type").tolist() == [kind]
    assert cells.column("type_prob").tolist() == [np.float32(votes * 4 / (256 + 1e-6))]


def test_background_is_no_cell():
    inst, cells = extract_cells(*square([0]))
    assert len(cells) == 0
    assert (inst > 0).sum() == 256
