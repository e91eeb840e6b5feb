import numpy as np
import pytest
import tifffile

from cellvit_jax.errors import InputError
from cellvit_jax.evaluation.annotated import measure, scoring_of
from cellvit_jax.evaluation.network import segment_sample
from cellvit_jax.evaluation.predictions import Stored
from cellvit_jax.exports import labels, parquet
from tests.evaluation.fields import dataset, network


def write(root, data, types=True):
    for folder in ("masks", *["types"] * types):
        (root / folder).mkdir()
    for sample in data.samples:
        tifffile.imwrite(root / "masks" / f"{sample.name}.tif", sample.instances)
        if types:
            tifffile.imwrite(root / "types" / f"{sample.name}.tif", sample.types)


@pytest.mark.parametrize("types", [True, False])
def test_label_images_are_read_beside_their_types(tmp_path, types):
    data = dataset(2)
    write(tmp_path, data, types)
    stored = Stored(tmp_path)
    names = dict(enumerate(data.classes, 1)) if stored.typed else {}
    evaluation = measure(stored, data, scoring_of(data, names))
    assert evaluation.image_mean["bpq"] == pytest.approx(1, abs=1e-5)
    assert evaluation.image_mean["mpq"] == pytest.approx(
        1 if types else np.nan, abs=1e-5, nan_ok=True
    )


def test_results_of_segment_are_measured_as_their_network(tmp_path):
    data, shown = dataset(1), network()
    found = segment_sample(data.samples[0], shown.predictor)
    folder = tmp_path / data.samples[0].name
    folder.mkdir()
    parquet.write(found.cells, folder / "cells.parquet")
    labels.write(found.instances, folder / "instances.tif")
    stored = Stored(tmp_path)
    assert stored.class_names == shown.class_names
    ((_, read),) = stored(data.samples, data.mpp)
    assert (read.instances == found.instances).all()
    assert sorted(read.types) == sorted(found.cells.column("id").tolist())


def test_a_missing_prediction_is_named(tmp_path):
    write(tmp_path, dataset(1))
    with pytest.raises(InputError, match=r"field1\.png"):
        list(Stored(tmp_path)(dataset(2).samples, 0.25))


def test_a_prediction_of_another_size_is_refused(tmp_path):
    write(tmp_path, dataset(1, side=96))
    with pytest.raises(InputError, match="annotation"):
        list(Stored(tmp_path)(dataset(1).samples, 0.25))


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        list(Stored(tmp_path / "x")(dataset(1).samples, 0.25))
