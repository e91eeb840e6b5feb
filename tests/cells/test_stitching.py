"""A whole image in blocks, and from tiles: the same cells, whatever the cuts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellvit_jax.cells import (
    Band,
    Cells,
    Piece,
    Planes,
    Remains,
    advance,
    extract_cells,
    shapes,
    stitch,
)
from cellvit_jax.cells.energy import RADIUS
from cellvit_jax.slides.tiles import plan
from tests.cells.records import LARGE, SMALL, boxes, record


def as_one_tile(*maps, **extras):
    """Instance map and cells with their shapes."""
    inst, cells = extract_cells(*maps, **extras, normalise="fixed")
    return inst, cells.replace_columns(**shapes(inst, len(cells)))


def same(a, b):
    return a.table.combine_chunks().equals(b.table.combine_chunks())


@pytest.mark.parametrize("name", SMALL + LARGE)
def test_blocks_as_one_tile(name):
    maps = record(name).maps
    inst, whole = as_one_tile(*maps)
    for block in (61, 128, 512):
        labels, cells = stitch(Planes.of(*maps), block=block)
        assert labels.dtype == np.uint32
        assert same(cells, whole)
        np.testing.assert_array_equal(labels, np.where(inst <= len(whole), inst, 0))


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(5, 60), st.floats(0.3, 0.8))
def test_any_clumps(seed, block, density):
    """Random nuclei as the network would never draw them: rings, islands, combs, giants."""
    rng = np.random.default_rng(seed)
    coarse = (rng.random((20, 24)) < density).astype(np.uint8)
    planes = Planes(
        binary=np.kron(coarse, np.ones((5, 5), np.uint8)),
        edge=np.float32(rng.integers(0, 2**23, (100, 120)) / 2**24),
        types=rng.integers(0, 3, (100, 120)).astype(np.uint8),
    )
    expected_labels, expected = stitch(planes, block=120)
    labels, cells = stitch(planes, block=block)
    assert same(cells, expected)
    np.testing.assert_array_equal(labels, expected_labels)


def test_ring_around_blocks():
    """What a closed ring of marker holds belongs to it, however far apart its sides are."""
    binary = np.zeros((200, 200), np.uint8)
    binary[20:180, 20:180] = 1
    binary[30:170, 30:170] = 0
    binary[90:110, 90:110] = 1  # an island in a block of its own
    planes = Planes(binary, np.zeros((200, 200), np.float32), binary)
    for block in (60, 80, 200):
        labels, cells = stitch(planes, block=block)
        assert len(cells) == 1
        np.testing.assert_array_equal(labels, binary)


def mosaic(side, names):
    """Two records side by side, over and over, to `side` pixels: nuclei cut at every joint."""
    n = side // len(record(names[0]).types)
    rows = [[record(names[(i + j) % 2]).maps for i in range(n)] for j in range(n)]
    return [
        np.concatenate([np.concatenate([maps[k] for maps in row], 1) for row in rows])
        for k in range(3)
    ]


@pytest.mark.parametrize(("side", "names"), [(2048, ("crowded-512", "noisy-512")), (4096, LARGE)])
def test_large_image(side, names):
    planes = Planes.of(*mosaic(side, names))
    labels, cells = stitch(planes, block=512)
    whole_labels, whole = stitch(planes, block=side)
    assert same(cells, whole)
    np.testing.assert_array_equal(labels, whole_labels)
    # no two cells share a pixel, and none has lost one
    np.testing.assert_array_equal(np.bincount(labels.ravel())[1:], cells.column("area"))


def network(maps, tile):
    """Stands for a network without edge effects: the maps under a tile, mirrored outside."""
    pad = tile.size
    padded = [np.pad(m, [(pad, pad)] * 2 + [(0, 0)] * (m.ndim - 2), "reflect") for m in maps]
    rows, columns = (slice(o + pad, o + pad + tile.size) for o in (tile.row, tile.col))
    return [np.ascontiguousarray(m[rows, columns]) for m in padded]


def pieces(maps, tiles):
    """The cores of tiles whose maps a network without edge effects made."""
    for tile in tiles:
        (r0, c0), (r1, c1) = tile.core
        part = Planes.of(*network(maps, tile))
        window = r0 - tile.row, c0 - tile.col, r1 - tile.row, c1 - tile.col
        yield Piece.of(part.crop(*window), r0, c0)


@pytest.mark.parametrize("size", [(512, 512), (300, 411), (40, 200)])
@pytest.mark.parametrize("order", [1, -1])
def test_tiles_as_one(size, order):
    maps = [m[: size[0], : size[1]] for m in record("crowded-512").maps]
    band = Band(list(pieces(maps, plan(size, 256, RADIUS)[::order])), size[0], True)
    _, table = advance(Remains(), band, size[1])
    _, whole = as_one_tile(*maps)
    assert same(Cells(table), whole)


def test_probabilities_and_tokens_survive():
    rng = np.random.default_rng(0)
    maps = record("crowded-512").maps
    probabilities = rng.random((512, 512, 6), np.float32)
    tokens = rng.random((32, 32, 4), np.float32)
    _, whole = as_one_tile(*maps, probabilities=probabilities, tokens=tokens)
    planes = Planes.of(*maps, probabilities=probabilities, tokens=tokens)
    _, cells = stitch(planes, block=200)
    assert same(cells, whole)


def test_nothing_to_find():
    blank = Planes(*np.zeros((3, 50, 70), np.uint8))
    labels, cells = stitch(blank, block=32)
    assert len(cells) == 0
    assert labels.shape == (50, 70)
    assert boxes(cells).shape == (0, 4)
