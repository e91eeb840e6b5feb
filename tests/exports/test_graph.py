import numpy as np
import pytest

from cellvit_jax import exports
from cellvit_jax.cells import neighbours
from cellvit_jax.errors import InputError
from tests.exports.samples import VARIANTS, in_blocks, sample


def graph(cells, folder, **options):
    exports.write(cells, folder / "graph.npz", **options)
    with np.load(folder / "graph.npz") as file:
        return dict(file)


@pytest.mark.parametrize("variant", VARIANTS)
def test_nodes_are_the_cells(variant, tmp_path):
    cells = VARIANTS[variant]
    found = graph(cells, tmp_path)
    np.testing.assert_array_equal(found["id"], cells.column("id"))
    np.testing.assert_array_equal(found["position"][:, 1], cells.column("centroid_y"))
    np.testing.assert_array_equal(found["type"], cells.column("type"))
    assert set(found["type"]) <= set(found["class_ids"])
    assert ("token" in found) == ("token" in cells.table.schema.names)
    if "token" in found:
        expected = cells.table["token"].combine_chunks().flatten().to_numpy()
        np.testing.assert_array_equal(found["token"].ravel(), expected)


def test_tokens_are_the_same_from_blocks(tmp_path):
    whole, streamed = (
        graph(c, tmp_path) for c in (sample(tokens=7), in_blocks(sample(tokens=7), 5))
    )
    np.testing.assert_array_equal(whole["token"], streamed["token"])
    assert whole["token"].shape == (12, 7)


@pytest.mark.parametrize("k", [None, 3])
def test_edges_go_both_ways_and_are_measured_in_microns(k, tmp_path):
    found = graph(sample(40), tmp_path, k=k, max_length=4.5)
    expected, lengths = neighbours(found["position"], k=k, max_length=4.5 / 0.25)
    half = len(expected)
    np.testing.assert_array_equal(found["edge_index"][:, :half].T, expected)
    np.testing.assert_array_equal(found["edge_index"][::-1, half:].T, expected)
    np.testing.assert_allclose(found["edge_length"], np.tile(lengths, 2) * 0.25, rtol=1e-6)
    assert half > 0


def test_edges_of_over_50_microns_are_left_out_unless_asked_for(tmp_path):
    two = sample(2).replace_columns(centroid_x=np.array([0.0, 240.0]))
    assert graph(two, tmp_path)["edge_index"].shape == (2, 0)
    assert graph(two, tmp_path, max_length=61)["edge_index"].tolist() == [[0, 1], [1, 0]]
    near = two.replace_columns(centroid_x=np.array([0.0, 199.0]))
    assert graph(near, tmp_path)["edge_length"].tolist() == [49.75, 49.75]


def test_without_a_resolution_lengths_are_pixels(tmp_path):
    found = graph(sample(2, mpp=None), tmp_path)
    assert found["edge_length"].tolist() == [16, 16]
    assert np.isnan(found["mpp"])


@pytest.mark.parametrize(
    ("cells", "options", "reason"),
    [
        (sample(), {"k": 0}, "1 or more"),
        (sample(), {"max_length": 0}, "over 0"),
        (sample(), {"max_length": float("nan")}, "over 0"),
        (sample(mpp=None), {"max_length": 10}, "unknown"),
    ],
)
def test_what_makes_no_graph_is_refused(cells, options, reason, tmp_path):
    with pytest.raises(InputError, match=reason):
        exports.write(cells, tmp_path / "graph.npz", **options)
    assert not list(tmp_path.iterdir())
