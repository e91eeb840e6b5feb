import dataclasses
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from cellvit_jax.errors import CellViTError, InputError
from cellvit_jax.evaluation import annotated
from cellvit_jax.evaluation.annotated import measure, scoring_of, validate
from cellvit_jax.evaluation.jobs import Maps, Prediction, resolve, score
from cellvit_jax.evaluation.network import _see, segment_sample
from tests.evaluation.cases import Late
from tests.evaluation.fields import CARD, dataset, network

RIGHT = {1: "Round", 2: "Long"}


def truth(samples, mpp):
    """A perfect network."""
    for sample in samples:
        types = {
            i: int(sample.types[sample.instances == i][0]) for i in np.unique(sample.instances)
        }
        yield sample, Prediction(sample.instances, types, "Skin")


def test_a_perfect_prediction_scores_one():
    data = dataset(4)
    evaluation = measure(truth, data, scoring_of(data, RIGHT))
    for key in ("bpq", "mpq", "aji", "dice", "f1"):
        assert evaluation.image_mean[key] == pytest.approx(1, abs=1e-5)
    assert evaluation.image_mean["tissue_accuracy"] == 0.5
    assert [image.name for image in evaluation.images] == [s.name for s in data.samples]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_network_goes_on_while_a_field_is_scored(workers, tmp_path):
    """Each field but the last can only be scored once the next one was asked for."""
    data = dataset(4)

    def find(samples, mpp):
        for i, (sample, found) in enumerate(truth(samples, mpp)):
            (tmp_path / f"{i - 1}").touch()
            last = i + 1 == len(samples)
            types = found.types if last else Late(dict(found.types), tmp_path / f"{i}")
            yield sample, dataclasses.replace(found, types=types)

    evaluation = measure(find, data, scoring_of(data, RIGHT), workers=workers)
    assert [image.name for image in evaluation.images] == [s.name for s in data.samples]
    assert evaluation.image_mean["mpq"] == pytest.approx(1, abs=1e-5)


def test_workers_leave_jax_alone():
    data = dataset(1)
    (job,) = [annotated._job(data, *one) for one in truth(data.samples, 0.25)]
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert pool.submit(score, job, scoring_of(data, RIGHT)).result().overall.nuclei
        assert not pool.submit(eval, "'jax' in __import__('sys').modules").result()


def test_ids_of_classes_are_matched_by_name():
    assert scoring_of(dataset(), {1: "long", 2: "Round", 3: "Other"}).same == {1: 2, 2: 1}


def test_types_are_not_compared_where_a_class_has_no_namesake():
    assert scoring_of(dataset(), {1: "Round", 2: "Dead"}).class_names == {}


@pytest.mark.parametrize(("mpp", "radius"), [(0.25, 12), (0.5, 6)])
def test_the_radius_is_halved_at_20x(mpp, radius):
    assert scoring_of(dataset(mpp=mpp), RIGHT).radius == radius


def test_tiles_are_measured_as_segment_finds_them():
    shown, data = network(batch_size=2), dataset(3)
    for sample, found in shown(data.samples, data.mpp):
        assert isinstance(found, Maps)
        segmented = segment_sample(sample, shown.predictor)
        ours = resolve(found)
        theirs = Prediction.of(segmented.instances, segmented.cells)
        assert ((ours.instances > 0) == (theirs.instances > 0)).all()
        assert sorted(ours.types.values()) == sorted(theirs.types.values())
        assert found.tissue in CARD.tissues


def test_batches_are_divided_as_the_networks_are():
    """Six tiles among eight devices."""
    data = dataset(3)
    found = validate(network(batch_size=6), data).image_mean
    assert found["dice"] == pytest.approx(validate(network(), data).image_mean["dice"], abs=1e-6)


@pytest.mark.parametrize("change", [{"mpp": 0.5}, {"side": 96}])
def test_other_fields_go_the_way_of_images(change):
    data = dataset(1, **change)
    assert network().side(data.samples[0], data.mpp) == 0
    evaluation = validate(network(), data)
    assert evaluation.images[0].overall.nuclei > 0


def test_validation_compiles_once_for_networks_of_one_structure():
    data = dataset(2)
    first = validate(network(batch_size=2), data)
    compiled = _see._cache_size()
    assert validate(network(batch_size=2), data).figures["image_mean"] == pytest.approx(
        first.figures["image_mean"], nan_ok=True
    )
    assert _see._cache_size() == compiled


def test_a_predictor_and_its_network_are_measured_alike():
    data, shown = dataset(1), network()
    ours, theirs = (validate(one, data).image_mean for one in (shown, shown.predictor))
    assert ours["dice"] == pytest.approx(theirs["dice"], abs=1e-6)
    assert np.isnan(theirs["tissue_accuracy"])


def test_points_are_no_truth_for_a_segmentation():
    with pytest.raises(InputError, match="outlines"):
        validate(network(), dataset(outlined=False))


def test_errors_of_a_field_come_through():
    data = dataset(1)
    bad = dataclasses.replace(data.samples[0], instances=np.zeros((3, 3), np.int32))

    def find(samples, mpp):
        yield bad, Prediction(data.samples[0].instances)

    with pytest.raises(CellViTError, match="one size"):
        measure(find, data, scoring_of(data, {}))
