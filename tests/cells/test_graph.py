import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import Delaunay
from scipy.spatial.distance import cdist

from cellvit_jax.cells import neighbours

POINTS = np.random.default_rng(0).uniform(0, 100, (200, 2))


def as_set(edges):
    return {tuple(edge) for edge in edges.tolist()}


def check(points, edges, lengths):
    assert (edges[:, 0] < edges[:, 1]).all()
    assert len(as_set(edges)) == len(edges)
    assert edges.tolist() == sorted(edges.tolist())
    np.testing.assert_allclose(
        lengths, np.linalg.norm(np.diff(points[edges], axis=1)[:, 0], axis=1)
    )


def test_delaunay_edges_are_the_sides_of_its_triangles():
    edges, lengths = neighbours(POINTS)
    check(POINTS, edges, lengths)
    simplices = Delaunay(POINTS).simplices
    sides = {tuple(sorted(map(int, (t[i], t[i - 1])))) for t in simplices for i in range(3)}
    assert as_set(edges) == sides


@pytest.mark.parametrize("k", [1, 5, 300])
def test_nearest_as_by_all_distances(k):
    edges, lengths = neighbours(POINTS, k=k)
    check(POINTS, edges, lengths)
    nearest = np.argsort(cdist(POINTS, POINTS), axis=1)[:, 1 : k + 1]
    expected = {tuple(sorted((i, j))) for i, row in enumerate(nearest.tolist()) for j in row}
    assert as_set(edges) == expected


@pytest.mark.parametrize("k", [None, 5])
def test_long_edges_are_left_out(k):
    edges, lengths = neighbours(POINTS, k=k)
    short, _ = neighbours(POINTS, k=k, max_length=np.median(lengths))
    np.testing.assert_array_equal(short, edges[lengths <= np.median(lengths)])
    assert 0 < len(short) < len(edges)


@pytest.mark.parametrize("k", [None, 1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_points(count, k):
    edges, lengths = neighbours(POINTS[:count], k=k)
    assert edges.shape == (len(lengths), 2)
    assert len(edges) == (count * (count - 1) // 2 if k != 1 else max(count - 1, 0))


@pytest.mark.parametrize("direction", [(1, 0), (0, 1), (1, 3)])
def test_points_on_a_line_are_a_chain(direction):
    points = np.array([3, 0, 2, 1])[:, None] * np.array(direction)
    assert as_set(neighbours(points)[0]) == {(1, 3), (2, 3), (0, 2)}


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=30))
def test_everything_is_joined_whatever_the_places(places):
    points = np.array(places, float).reshape(-1, 2)
    edges, lengths = neighbours(points)
    check(points, edges, lengths)
    joined = set(edges.ravel().tolist())
    assert joined == (set(range(len(points))) if len(points) > 1 else set())
    for i, j in zip(*np.nonzero(np.triu(cdist(points, points) == 0, 1)), strict=True):
        assert connected_at_one_place(points, edges, i, j)


def connected_at_one_place(points, edges, i, j):
    """Whether edges of no length lead from i to j."""
    reached, here = set(), {int(i)}
    same = [edge for edge in edges.tolist() if (points[edge[0]] == points[edge[1]]).all()]
    while here - reached:
        reached |= here
        here = {b for a, b in same if a in reached} | {a for a, b in same if b in reached}
    return int(j) in reached
