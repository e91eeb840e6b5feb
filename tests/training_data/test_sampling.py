import dataclasses
import json

import numpy as np
import pytest

from cellvit_jax.data import Dataset, Sample
from cellvit_jax.data.sampling import Sampling
from cellvit_jax.errors import InputError


def sample(*types: int, tissue: int | None = 0, typed: bool = True) -> Sample:
    """One pixel a cell, of the given types."""
    map_ = np.zeros((2, 8), np.uint8)
    map_[0, : len(types)] = types
    instances = np.zeros((2, 8), np.int32)
    instances[0, : len(types)] = np.arange(1, len(types) + 1)
    return Sample("s", np.zeros((2, 8, 3), np.uint8), instances, map_ if typed else None, tissue)


def dataset(*samples: Sample) -> Dataset:
    return Dataset("made", samples, ("a", "b", "c"), ("skin", "liver", "lung"))


MIXED = dataset(
    sample(1, 1, 2, tissue=0),
    sample(1, tissue=0),
    sample(tissue=1),
    sample(3, 1, tissue=1),
    sample(2, 3, 1, tissue=0),
    sample(1, 1, 1, tissue=2),
    sample(tissue=0),
)


def by_tissue(gamma: float) -> list[float]:
    tissues = [s.tissue for s in MIXED.samples]
    return [7 / (gamma * tissues.count(t) + (1 - gamma) * 7) for t in tissues]


def by_cell(gamma: float) -> list[float]:
    holds = [set(s.types[s.instances > 0].tolist()) for s in MIXED.samples]
    images = {c: sum(c in h for h in holds) for c in (1, 2, 3)}
    total = sum(images.values())
    weights = []
    for h in holds:
        balanced = sum(total / (gamma * images[c] + (1 - gamma) * total) for c in h)
        weights.append((1 - gamma) * (1 if h else 0) + gamma * balanced)
    smallest = min(w for w in weights if w > 0)
    return [w or smallest for w in weights]


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.85, 1.0])
def test_weights_are_the_published_formulas(gamma):
    tissue, cell = np.array(by_tissue(gamma)), np.array(by_cell(gamma))
    expected = {
        "random": np.ones(7),
        "tissue": tissue,
        "cell": cell,
        "tissue+cell": tissue / tissue.max() + cell / cell.max(),
    }
    for strategy, weights in expected.items():
        found = Sampling(strategy, gamma).weights(MIXED)
        np.testing.assert_allclose(found, weights / weights.sum(), rtol=1e-12)


def test_rare_tissues_and_classes_are_drawn_more_often():
    tissue, cell = (Sampling(s, 0.85).weights(MIXED) for s in ("tissue", "cell"))
    assert tissue[5] == tissue.max()
    assert cell[4] == cell.max()
    assert cell[2] == cell[6] == cell.min()


def test_untyped_fields_count_as_without_cells_and_classes_may_be_absent():
    data = dataset(sample(1), sample(1, 1, typed=False), sample(2))
    weights = Sampling("cell").weights(data)
    assert weights[1] == min(weights)
    assert np.isfinite(weights).all()


def test_types_outside_of_nuclei_do_not_count():
    stray = sample(1)
    stray.types[1] = 3
    weights = Sampling("cell", 1.0).weights(dataset(stray, sample(1)))
    np.testing.assert_allclose(weights, 0.5)


@pytest.mark.parametrize(
    ("sampling", "data", "message"),
    [
        (Sampling("tissue", 1.2), MIXED, r"gamma of the sampling is 1\.2"),
        (Sampling("tissue"), dataset(sample(1, tissue=None)), "made has no tissues"),
        (Sampling("tissue+cell"), dataset(sample(1, typed=False)), "made has no cell types"),
        (Sampling("cell"), dataset(sample(5)), "s has cells of type 5, the data set only 3"),
        (Sampling("random"), dataset(), "made has no fields"),
    ],
)
def test_what_cannot_be_balanced_is_said(sampling, data, message):
    with pytest.raises(InputError, match=message):
        sampling.weights(data)


def test_an_unknown_strategy_is_refused():
    with pytest.raises(InputError, match="cells: expected random, tissue, cell or tissue"):
        Sampling("cells").weights(MIXED)


def test_sampling_is_plain_values():
    published = Sampling.published()
    assert published == Sampling(**json.loads(json.dumps(dataclasses.asdict(published))))
    assert published == Sampling("tissue+cell", 0.85)
