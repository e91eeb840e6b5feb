"""From annotated images to a head that `segment` takes."""

import dataclasses
import gzip
import json
import uuid

import numpy as np
import pytest
from PIL import Image

import cellvit_jax as cj
from cellvit_convert.cli import main as convert
from cellvit_jax.data import Dataset, Sample
from cellvit_jax.data.open import open_splits
from cellvit_jax.errors import InputError
from cellvit_jax.heads import tasks
from cellvit_jax.heads.detect import Detector
from cellvit_jax.heads.fit import Recipe
from cellvit_jax.heads.pairs import gather
from tests.shared import DATA, shared
from tests.training_data.makers import feature, outlines, type_of

pytest.importorskip("optax")
pytest.importorskip("matplotlib")
# of the four classes, one has no cell in the one image of this set
pytestmark = pytest.mark.filterwarnings("ignore:no cell of tumor_any:UserWarning")
CLICKS, OUTLINES = (DATA / "cellvitpp" / name for name in ("detection", "segmentation"))
SHORT = ("--epochs", "3", "--hidden-dim", "8", "--quiet")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("tokens")


@pytest.fixture(scope="module")
def model():
    return cj.load("cellvit-tiny-consep")


@pytest.fixture
def head(call, tmp_path, cache):
    out = tmp_path / "head"
    code, _, errors = call(
        "head", "train", "--data", CLICKS, "--out", out, "--cache", cache, *SHORT
    )
    assert code == 0, errors
    return out


def test_a_head_with_its_report(head):
    report = json.loads((head / "report.json").read_text())
    loaded = cj.load(head)
    assert [c.name for c in loaded.card.classes[1:]] == report["classes"]
    assert report["scores"]["validation"]["count"] > 0
    assert sum(report["found"]) <= sum(report["annotated"])
    assert "| sTIL |" in (head / "report.md").read_text()
    assert (head / "report.png").read_bytes().startswith(b"\x89PNG")


def test_the_head_types_cells_and_goes_back_to_pytorch(head, call, tmp_path, monkeypatch):
    image = next(CLICKS.glob("train/images/*"))
    out = tmp_path / "out"
    options = ("--mpp", "0.25", "--export", "parquet", "--quiet")
    assert call("segment", image, "--out", out, "--head", head, *options)[0] == 0
    assert cj.read_cells(out / image.stem).classes[3][0] == "sTIL"
    monkeypatch.setattr("sys.argv", ["cellvit-convert", str(head), str(tmp_path / "head.pth")])
    convert()
    back = ["cellvit-convert", str(tmp_path / "head.pth"), str(tmp_path / "back")]
    monkeypatch.setattr("sys.argv", back)
    convert()
    kernels = [cj.load(path).fc1.kernel[...] for path in (head, tmp_path / "back")]
    np.testing.assert_array_equal(*kernels)


def test_uncached_keeps_nothing(call, tmp_path):
    given = ("--data", CLICKS, "--out", tmp_path / "head", "--uncached", "--cache", tmp_path / "c")
    code, _, errors = call("head", "train", *given, *SHORT)
    assert code == 0, errors
    assert cj.load(tmp_path / "head").config.hidden_dim == 8
    assert not (tmp_path / "c").exists()


def test_cached_equals_uncached(model, cache, tmp_path):
    splits = {"train": open_splits(CLICKS)["train"]}
    cached, fresh = Detector(model, cache), Detector(model, tmp_path / "new")
    first, second, again = (gather(splits["train"], "train", d) for d in (fresh, fresh, cached))
    assert fresh.runs == 1
    for one in (second, again):
        np.testing.assert_array_equal(first.tokens, one.tokens)
        np.testing.assert_array_equal(first.labels, one.labels)
    recipe = Recipe(hidden_dim=8, epochs=2)
    heads = [tasks.trained(splits, d, recipe)[0].head for d in (fresh, cached)]
    np.testing.assert_array_equal(heads[0].fc2.kernel[...], heads[1].fc2.kernel[...])


def test_from_outlines_that_the_network_agrees_with(call, model, tmp_path, cache):
    (sample,) = open_splits(CLICKS)["train"].samples
    found = Detector(model, cache)(sample.name, sample.image, 0.25)
    kinds = np.where(found.instances > 0, 1 + found.instances % 2, 0)
    layers = {"images": sample.image, "masks": found.instances.astype(np.uint16)}
    for name, pixels in (layers | {"types": np.uint8(kinds)}).items():
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "set" / name / "field.png")
    (tmp_path / "set" / "classes.yaml").write_text("classes: {1: even, 2: odd}\nmpp: 0.25\n")
    given = ("--data", tmp_path / "set", "--out", tmp_path / "h", "--cache", cache, *SHORT)
    code, _, errors = call("head", "train", *given)
    assert code == 0, errors
    report = json.loads((tmp_path / "h" / "report.json").read_text())
    even = len(found.types) // 2
    assert report["classes"] == ["even", "odd"]
    assert report["annotated"] == report["found"] == [even, len(found.types) - even]


def test_folds_score_each_cell_once_and_the_head_learns_from_all(model, cache):
    data = open_splits(CLICKS)["train"]
    (sample,) = data.samples
    parts = [dataclasses.replace(sample, points=sample.points[i::2]) for i in (0, 1)]
    halves = [dataclasses.replace(data, samples=[part]) for part in parts]
    splits = {
        f"fold_{k}_{name}": halves[k ^ (name == "train")]
        for k in (0, 1)
        for name in ("train", "val")
    }
    detector = Detector(model, cache)
    fitted, report = tasks.trained(splits, detector, Recipe(hidden_dim=8, epochs=2))
    sizes = [len(gather(half, "val", detector)) for half in halves]
    assert report["scores"]["cross-validation, 2 folds"]["count"] == sum(sizes)
    assert sum(report["found"]) == sum(sizes)
    assert fitted.epoch == len(fitted.history) <= 2


@pytest.mark.slow
def test_the_examples_of_cellvitpp_in_their_folds(call, tmp_path):
    data = shared("data/cellvitpp-examples/Example-Detection")
    given = ("--data", data, "--out", tmp_path / "h", "--cache", tmp_path / "c", "--quiet")
    code, _, errors = call("head", "train", *given)
    assert code == 0, errors
    report = json.loads((tmp_path / "h" / "report.json").read_text())
    assert {"cross-validation, 3 folds", "test"} <= report["scores"].keys()
    assert report["scores"]["cross-validation, 3 folds"]["auroc"] > 0.5


def test_damaged_files_of_the_cache_are_made_anew(model, cache, tmp_path):
    detector = Detector(model, tmp_path)
    pixels = np.full((64, 64, 3), 240, np.uint8)
    first = detector("blank", pixels, 0.25)
    assert first.tokens.shape == (0, model.config.embed_dim)
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(path.read_bytes()[:100])
    detector("blank", pixels, 0.25)
    assert detector.runs == 2
    assert detector.key(pixels, 0.25) != detector.key(pixels, 0.5)
    assert detector.key(pixels, 0.25) != detector.key(pixels[:, ::-1] - 1, 0.25)


def test_networks_share_a_folder_and_look_once_however_often_annotations_change(model, tmp_path):
    other = cj.load("cellvit-tiny-consep")
    other.heads["hv_map"].bias[...] += 1e-3
    detectors = [Detector(one, tmp_path) for one in (model, other)]
    pixels = np.full((64, 64, 3), 240, np.uint8)
    assert len({detector.key(pixels, 0.25) for detector in detectors}) == 2
    for clicks in ([(9, 9, 1)], [(20, 20, 2), (30, 30, 1)]):
        empty = np.zeros((64, 64), np.int32)
        sample = Sample("blank", pixels, empty, None, points=np.float32(clicks))
        data = Dataset("clicks", [sample], ("A", "B"), outlined=False)
        for detector in detectors:
            assert gather(data, "all", detector).annotated.sum() == len(clicks)
    assert [detector.runs for detector in detectors] == [1, 1]
    assert len(list(tmp_path.glob("*.npz"))) == 2


def test_one_class_is_not_enough(model, cache):
    data = open_splits(CLICKS)["train"]
    one = dataclasses.replace(data.samples[0], points=data.samples[0].points[:1])
    with pytest.raises(InputError, match="two classes or more"):
        tasks.trained(
            {"all": dataclasses.replace(data, samples=[one])}, Detector(model, cache), Recipe()
        )


def test_from_outlines_of_cellvitpp_of_which_some_are_not_found(call, tmp_path, cache):
    given = ("--data", OUTLINES, "--out", tmp_path / "h", "--cache", cache, *SHORT)
    code, _, errors = call("head", "train", *given)
    assert code == 0, errors
    report = json.loads((tmp_path / "h" / "report.json").read_text())
    assert report["classes"] == ["Non-Tumor", "Tumor"]
    assert report["annotated"] == [24, 14]  # of one image, which is learned from and validated on
    assert 0 < sum(report["found"]) < 38
    assert report["scores"]["validation"]["count"] == sum(report["found"]) / 2
    page = (tmp_path / "h" / "report.md").read_text()
    assert f"{sum(report['found'])} of 38 annotated cells were found" in page


def exported(kind: str, ring: np.ndarray, name: str, **more) -> dict:
    """An object as QuPath 0.5 exports it."""
    known = {"isLocked": True} if kind == "annotation" else {"measurements": {"Area": 9.5}}
    label = {"name": name, "color": [200, 0, 0]}
    made = feature(ring, kind=kind, classification=label, **known)
    return made | {"id": str(uuid.uuid4())} | more


def test_from_a_compressed_export_of_qupath(call, tmp_path, cache, model):
    """Nuclei are annotations, detections, and cells, whose outer outlines are not asked for."""
    data = open_splits(OUTLINES)["train"]
    (sample,) = data.samples
    corners = np.array([(0, 0), (288, 0), (288, 260), (0, 260)])
    features = [exported("annotation", corners, "Region*")]
    for i, ring in outlines(sample).items():
        name = data.classes[type_of(sample, i) - 1]
        if kind := i % 3:
            features.append(exported(("detection", "annotation")[kind - 1], ring, name))
        else:
            nucleus = feature(ring)["geometry"]
            around = ring + 40 * np.sign(ring - ring.mean(0))
            features.append(exported("cell", around, name, nucleusGeometry=nucleus))
    content = {"type": "FeatureCollection", "features": features}
    path = tmp_path / "field.geojson.gz"
    path.write_bytes(gzip.compress(json.dumps(content).encode()))
    places = ("--data", next(OUTLINES.glob("train/images/*")), "--annotations", path)
    given = ("--mpp", "0.25", "--out", tmp_path / "h", "--cache", cache, *SHORT)
    code, _, errors = call("head", "train", *places, *given)
    assert code == 0, errors
    report = json.loads((tmp_path / "h" / "report.json").read_text())
    known = gather(data, "train", Detector(model, cache))
    assert report["classes"] == list(data.classes)
    assert report["annotated"] == known.annotated.tolist() == [12, 7]
    assert report["found"] == known.counts.tolist()


@pytest.mark.filterwarnings("default:1 of 2 files:UserWarning")
def test_from_points_of_qupath_beside_the_images(call, tmp_path, cache):
    (sample,) = open_splits(CLICKS)["train"].samples
    for name in ("images", "clicks"):
        (tmp_path / name).mkdir()
    for name in ("one", "two"):
        Image.fromarray(sample.image).save(tmp_path / "images" / f"{name}.png")
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "MultiPoint", "coordinates": (places + 0.5).tolist()},
            "properties": {"objectType": "annotation", "classification": {"name": f"type {kind}"}},
        }
        for kind in (2, 3, 4)
        for places in [sample.points[sample.points[:, 2] == kind, :2]]
    ]
    content = {"type": "FeatureCollection", "features": features}
    (tmp_path / "clicks" / "one.png.geojson").write_text(json.dumps(content))
    (tmp_path / "clicks" / "two.png.geojson").write_text("[]")
    places = ("--data", tmp_path / "images", "--annotations", tmp_path / "clicks", "--mpp", "0.25")
    code, _, errors = call(
        "head", "train", *places, "--out", tmp_path / "h", "--cache", cache, *SHORT
    )
    assert code == 0, errors
    assert "left out: two.png.geojson" in errors
    report = json.loads((tmp_path / "h" / "report.json").read_text())
    assert report["classes"] == ["type 2", "type 3", "type 4"]
    assert report["annotated"] == [6, 6, 6]


def test_what_is_there_is_kept(head, call):
    code, _, errors = call("head", "train", "--data", CLICKS, "--out", head)
    assert code == 2
    assert "--overwrite" in errors
