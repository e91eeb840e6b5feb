"""Tokens of cells as means over their pixels, against a loop over pixels."""

from fractions import Fraction

import numpy as np
import pytest

from cellvit_jax.cells import Piece, Planes, Remains, Tokens, advance, instances
from cellvit_jax.cells.measure import measure
from cellvit_jax.cells.stitching import Band


@pytest.mark.parametrize(("grid", "origin", "first"), [((4, 4), (0, 0), 0), ((5, 7), (16, 24), 1)])
def test_means_over_pixels(grid, origin, first):
    rng = np.random.default_rng(0)
    inst = np.repeat(np.repeat(rng.permutation(16).reshape(4, 4), 6, 0), 5, 1).astype(np.int32)
    sides = Fraction(64, grid[0]), Fraction(64, grid[1])
    tokens = rng.normal(size=(*grid, 3)).astype(np.float32)
    planes = Planes(np.uint8(inst > 0), np.zeros(inst.shape), np.uint8(inst > 0), tokens=tokens)
    planes = Planes(**vars(planes) | {"token_sides": sides, "first_token": first})
    planes = Planes(**vars(planes) | {"tokens": tokens[first:]})
    table, _ = measure(inst, planes, origin, masked=True)
    found = np.array(table["token"].to_pylist())
    for i in range(1, 16):
        inside = [
            tokens[int((r + origin[0] + 0.5) / sides[0]), int((c + origin[1] + 0.5) / sides[1])]
            for r, c in np.argwhere(inst == i)
        ]
        np.testing.assert_allclose(found[i - 1], np.mean(inside, 0), rtol=1e-6)


def test_pieces_do_not_matter():
    rng = np.random.default_rng(1)
    binary = np.zeros((64, 48), np.uint8)
    binary[10:40, 8:30] = 1
    edge = np.zeros(binary.shape, np.float32)
    tokens = Tokens(rng.normal(size=(4, 3, 5)).astype(np.float32), (Fraction(16), Fraction(16)))
    planes = Planes(binary, edge, binary)
    whole = advance(Remains(), Band([Piece.of(planes, 0, 0)], 64, True, tokens), 48, masked=True)[1]
    upper = Band(
        [Piece.of(planes.crop(0, 0, 32, 48), 0, 0)],
        32,
        False,
        Tokens(tokens.grid[:2], tokens.sides),
    )
    lower = Band(
        [Piece.of(planes.crop(32, 0, 64, 48), 32, 0)],
        64,
        True,
        Tokens(tokens.grid[2:], tokens.sides, 2),
    )
    remains, _ = advance(Remains(), upper, 48, masked=True)
    _, table = advance(remains, lower, 48, masked=True)
    assert len(table) == 1
    assert instances(binary, edge).max() == 1
    np.testing.assert_array_equal(table["token"].to_pylist(), whole["token"].to_pylist())


@pytest.mark.parametrize("masked", [True, False])
def test_a_cell_of_more_than_255_tokens(masked):
    tokens = np.random.default_rng(2).normal(size=(40, 40, 2)).astype(np.float32)
    inst = np.ones((40, 40), np.int32)
    planes = Planes(np.uint8(inst), np.zeros(inst.shape), np.uint8(inst), tokens=tokens)
    table, _ = measure(inst, planes, masked=masked)
    np.testing.assert_allclose(table["token"].to_pylist(), [tokens.mean((0, 1))], atol=1e-6)
