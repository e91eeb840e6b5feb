"""An image that comes in bands: the same cells, ids and all, whatever their heights."""

from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellvit_jax import metrics
from cellvit_jax.cells import (
    Band,
    Cells,
    Piece,
    Planes,
    Remains,
    Tokens,
    advance,
    canvas,
    painted,
    stitch,
)
from tests.cells.records import record
from tests.cells.test_stitching import mosaic, same


def bands(planes, heights, width, tokens=None):
    """The image cut into bands, each of them into pieces of that width."""
    rows, cols = planes.binary.shape
    top = 0
    for height in heights:
        bottom = min(top + height, rows)
        pieces = [
            Piece.of(planes.crop(top, c, bottom, min(c + width, cols)), top, c)
            for c in range(0, cols, width)
        ]
        yield Band(pieces, bottom, bottom == rows, tokens and tokens(top, bottom))
        if bottom == rows:
            return
        top = bottom


def stream(planes, height, width, tokens=None):
    """Label image and cells, and how many pixels were carried from band to band at most."""
    remains, tables, carried = Remains(), [], 0
    for band in bands(planes, [height] * 10_000, width, tokens):
        remains, table = advance(remains, band, planes.binary.shape[1], runs=True)
        carried = max(carried, sum(len(piece.edge) for piece in remains.pieces))
        tables.append(table)
    table = pa.concat_tables(tables)
    cells = Cells(table.drop_columns(["runs"]))
    return painted(table, planes.binary.shape), cells, carried


@pytest.mark.parametrize(("height", "width"), [(61, 200), (128, 128), (200, 61), (512, 100)])
@pytest.mark.parametrize("name", ["crowded-512", "noisy-512"])
def test_bands_of_a_record(name, height, width):
    planes = Planes.of(*record(name).maps)
    expected_labels, expected = stitch(planes)
    labels, cells, carried = stream(planes, height, width)
    assert same(cells, expected)
    np.testing.assert_array_equal(labels, expected_labels)
    assert height == 512 or 0 < carried < planes.binary.sum()


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(3, 60), st.integers(5, 60), st.floats(0.3, 0.8))
def test_any_clumps(seed, height, width, density):
    """Rings, islands, combs and arches that are open for many bands."""
    rng = np.random.default_rng(seed)
    coarse = (rng.random((20, 24)) < density).astype(np.uint8)
    planes = Planes(
        binary=np.kron(coarse, np.ones((5, 5), np.uint8)),
        edge=np.float32(rng.integers(0, 2**23, (100, 120)) / 2**24),
        types=rng.integers(0, 3, (100, 120)).astype(np.uint8),
        probabilities=rng.random((100, 120, 3)).astype(np.float16),
    )
    expected_labels, expected = stitch(planes, block=120)
    labels, cells, _ = stream(planes, height, width)
    assert same(cells, expected)
    np.testing.assert_array_equal(labels, expected_labels)


@pytest.fixture
def small_reach(monkeypatch):
    monkeypatch.setattr(canvas, "REACH", 256)
    monkeypatch.setattr(canvas, "HALO", 64)


def network_of_nuclei(side):
    """Nuclei on a grid, all connected: one clump as large as the image."""
    y, x = np.mgrid[:side, :side]
    dy, dx = y % 24 - 12, x % 24 - 12
    distance = np.hypot(dy, dx)
    binary = ((distance < 10) | (np.abs(dy) < 2) | (np.abs(dx) < 2)).astype(np.uint8)
    edge = np.clip((distance - 4) / 10, 0, 1).astype(np.float32)
    return Planes(binary, np.floor(edge * 2**24).astype(np.float32) / 2**24, binary)


@pytest.mark.parametrize("height", [100, 256, 700])
def test_a_clump_that_never_closes_is_solved_in_squares(small_reach, height):
    """Cells are those of the whole, found once, and what is carried does not grow."""
    planes = network_of_nuclei(1024)
    labels, cells, carried = stream(planes, height, 300)
    np.testing.assert_array_equal(np.bincount(labels.ravel())[1:], cells.column("area"))
    assert carried < 1024 * (256 + 64 + 256 + 64)
    canvas.REACH = 4096
    _, whole = stitch(planes, block=1024)
    assert len(cells) == len(whole)
    a, b = (np.stack([c.column("centroid_x"), c.column("centroid_y")], 1) for c in (cells, whole))
    assert metrics.detection(a, b, 1.0).f1 > 0.999


def test_giants_of_records(small_reach):
    planes = Planes.of(*mosaic(1024, ("crowded-512", "noisy-512")))
    labels, cells, _ = stream(planes, 300, 400)
    canvas.REACH = 4096
    _, whole = stitch(planes)
    a, b = (np.stack([c.column("centroid_x"), c.column("centroid_y")], 1) for c in (cells, whole))
    assert metrics.detection(a, b, 1.0).f1 > 0.999
    assert labels.max() == len(cells)


def test_tokens_come_in_bands_too():
    rng = np.random.default_rng(0)
    maps, grid = record("crowded-512").maps, rng.random((32, 32, 4), np.float32)
    _, whole = stitch(Planes.of(*maps, tokens=grid))

    def tokens(top, bottom):
        first, end = -(-top // 16), -(-bottom // 16)
        return Tokens(grid[first:end], (Fraction(16), Fraction(16)), first) if first < end else None

    _, cells, _ = stream(Planes.of(*maps), 100, 128, tokens)
    assert same(cells, whole)


def test_nothing_at_all():
    labels, cells, carried = stream(Planes(*np.zeros((3, 50, 70), np.uint8)), 20, 30)
    assert (len(cells), labels.any(), carried) == (0, False, 0)
    remains, table = advance(Remains(), Band((), 40, False), 70)
    assert (remains.pieces, table.num_rows) == ((), 0)
