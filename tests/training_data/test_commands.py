"""`cellvit-jax data …` as people call it."""

import json

import numpy as np
import pytest
from PIL import Image

from cellvit_jax.data import open_dataset
from tests.training_data.makers import made, outlines, png
from tests.training_data.same import assert_same_nuclei


@pytest.fixture
def source(tmp_path):
    made("pannuke", tmp_path / "pannuke")
    return tmp_path / "pannuke"


def test_inspect_prints_counts_and_draws_a_sheet(call, source, tmp_path):
    code, out, err = call("data", "inspect", source, "--sheet", tmp_path / "sheet.png", "--quiet")
    assert (code, err) == (0, "")
    assert "layout pannuke" in out
    assert out.count("fold") >= 3
    assert "warning: images that are there more than once" in out
    assert np.asarray(Image.open(tmp_path / "sheet.png")).shape[1] > 448


def test_prepare_writes_what_opens_again(call, source, tmp_path):
    pytest.importorskip("tensorflow_datasets")
    code, out, _ = call("data", "prepare", source, tmp_path / "out", "--split", "fold1", "fold3")
    assert code == 0
    assert "2 fields of fold1, 2 fields of fold3" in out
    assert len(open_dataset(tmp_path / "out", "fold3").samples) == 2


@pytest.mark.parametrize(("to", "split"), [("plain", "fold2"), ("cellvit", "fold1")])
def test_prepare_writes_other_forms(call, source, tmp_path, to, split):
    code, _, _ = call("data", "prepare", source, tmp_path / "out", "--to", to, "--quiet")
    assert code == 0
    assert len(open_dataset(tmp_path / "out", split).samples) == 2


def test_from_qupath_makes_a_plain_set(call, tmp_path):
    sample = made("plain", tmp_path / "unused")
    png(tmp_path / "a.png", sample.image)
    rings = [[[*p.tolist(), p[0].tolist()]] for p in outlines(sample).values()]
    label = {"objectType": "annotation", "classification": {"name": "cell"}}
    geometry = {"type": "MultiPolygon", "coordinates": rings}
    (tmp_path / "a.geojson").write_text(
        json.dumps([{"type": "Feature", "geometry": geometry, "properties": label}])
    )
    command = ["data", "from-qupath", tmp_path / "a.png", tmp_path / "a.geojson", tmp_path / "out"]
    code, out, _ = call(*command, "--mpp", "0.3")
    assert (code, out.split()) == (0, ["wrote", f"{tmp_path}/out:", "1", "field"])
    dataset = open_dataset(tmp_path / "out")
    assert (dataset.classes, dataset.mpp) == (("cell",), 0.3)
    assert_same_nuclei(dataset.samples[0].instances, sample.instances)
    assert np.unique(dataset.samples[0].types).tolist() == [0, 1]
    code, _, err = call(*command)
    assert (code, "--overwrite" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "nowhere"], "is not there"),
        (["inspect", "{source}", "--split", "fold9"], "give any of fold1, fold2, fold3"),
        (["prepare", "{source}", "{source}"], "exists"),
        (["inspect", "{source}", "--layout", "coco"], "no layout 'coco'"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(call, source, arguments, message):
    code, out, err = call("data", *(a.format(source=source) for a in arguments))
    assert (code, out) == (2, "")
    assert message in err
