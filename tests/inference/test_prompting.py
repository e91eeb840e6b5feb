"""`cellvit-jax prompt`: what it writes, and one clear sentence for everything that goes wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellvit_jax import zoo
from cellvit_jax.exports import masks, read_cells
from cellvit_jax.inference.results import WRITERS
from tests.networks import save_small, save_small_sam

FILES = {name for name, _ in WRITERS.values()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An image, a small SAM, and results of a network that found some cells."""
    path = tmp_path_factory.mktemp("prompt")
    save_small_sam(path / "sam")
    pixels = np.asarray(Image.open(zoo.ASSETS / "he-consep.png"))[:120, :140]
    Image.fromarray(pixels).save(path / "tissue.png", dpi=(101600, 101600))
    return path


def prompt(call, folder: Path, out: Path, *options: object, image: str = "tissue.png"):
    arguments = (folder / image, "--model", folder / "sam", "--out", out)
    return call("prompt", *arguments, *options)


def test_points_give_a_mask_a_picture_and_scores(call, folder, tmp_path):
    options = ("--point", "30,40", "--point", "35.5,42", "--background-point", "90,10")
    code, out, err = prompt(call, folder, tmp_path, *options)
    assert (code, err) == (0, "")
    written = {path.name for path in (tmp_path / "tissue").iterdir()}
    assert written == {"mask.png", "overlay.png", "scores.json"}
    mask = np.asarray(Image.open(tmp_path / "tissue" / "mask.png"))
    assert mask.shape == (120, 140)
    assert set(np.unique(mask)) <= {0, 255}
    (entry,) = json.loads((tmp_path / "tissue" / "scores.json").read_text())["masks"]
    assert (entry["file"], entry["area"]) == ("mask.png", int((mask > 0).sum()))
    assert entry["points"][2] == {"x": 90.0, "y": 10.0, "label": 0}
    assert f"tissue: 1 mask of {entry['area']:,} px" in out


def test_a_lone_point_has_candidates_of_which_the_best_is_written(call, folder, tmp_path):
    assert prompt(call, folder, tmp_path, "--point", "30,40", "--quiet") == (0, "", "")
    (entry,) = json.loads((tmp_path / "tissue" / "scores.json").read_text())["masks"]
    assert len(entry["candidates"]) == 3
    assert entry["score"] == max(entry["candidates"])
    code, _, err = prompt(call, folder, tmp_path, "--point", "30,40")
    assert code == 2
    assert "give --overwrite to replace it" in err


def test_every_box_has_a_mask(call, folder, tmp_path):
    boxes = ("--box", "10,10,40,40", "--box", "60,20,100,70")
    assert prompt(call, folder, tmp_path, *boxes)[0] == 0
    entries = json.loads((tmp_path / "tissue" / "scores.json").read_text())["masks"]
    assert [entry["box"] for entry in entries] == [[10, 10, 40, 40], [60, 20, 100, 70]]
    assert [entry["file"] for entry in entries] == ["mask-1.png", "mask-2.png"]


def test_a_mask_can_be_improved(call, folder, tmp_path):
    rough = np.zeros((120, 140), bool)
    rough[20:60, 30:80] = True
    masks.write(rough, tmp_path / "rough.png")
    assert prompt(call, folder, tmp_path / "b", "--mask", tmp_path / "rough.png")[0] == 0
    assert (tmp_path / "b" / "tissue" / "mask.png").exists()


def test_refine_writes_what_segment_writes(call, folder, tmp_path):
    image = folder / "tissue.png"
    assert call("segment", image, "--out", tmp_path / "a", "--mpp", "0.25")[0] == 0
    results = tmp_path / "a" / "tissue"
    code, out, err = prompt(call, folder, tmp_path / "b", "--refine", results, "--window", "64")
    assert (code, err) == (0, "")
    assert {path.name for path in (tmp_path / "b" / "tissue").iterdir()} == FILES
    before, after = read_cells(results), read_cells(tmp_path / "b" / "tissue")
    np.testing.assert_array_equal(after.column("id"), before.column("id"))
    assert after.mpp == before.mpp == 0.25
    refined = int(after.column("refined").sum())
    assert f"{refined} cells drawn again, {len(after) - refined} keep their outlines" in out
    labels = tifffile.imread(tmp_path / "b" / "tissue" / "instances.tif")
    assert set(np.unique(labels)) - {0} == set(after.column("id"))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ((), "give points, boxes or a mask"),
        (("--point", "3"), "'3' should be 2 numbers x,y"),
        (("--point", "a,b"), "'a,b' should be 2 numbers x,y"),
        (("--box", "1,2,3"), "should be 4 numbers x0,y0,x1,y1"),
        (("--point", "140,3"), "the point 140,3 lies outside of the image, which is 140 × 120"),
        (("--box", "5,5,2,9"), "top left to its bottom right"),
        (("--mask", "missing.png"), "missing.png does not exist"),
        (("--point", "3,3", "--window", "64"), "--window goes with --refine"),
        (("--point", "3,3", "--refine", "."), "give no other ones"),
        (("--refine", "nowhere"), "nowhere does not exist"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(call, folder, tmp_path, options, part):
    code, printed, err = prompt(call, folder, tmp_path / "out", *options)
    assert (code, printed) == (2, "")
    assert part in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_another_network_is_refused(call, folder, tmp_path):
    save_small(tmp_path / "cellvit")
    arguments = (folder / "tissue.png", "--model", tmp_path / "cellvit", "--out", tmp_path / "out")
    code, _, err = call("prompt", *arguments, "--point", "3,3")
    assert code == 2
    assert "prompts need a SAM" in err
    code, _, err = call("segment", folder / "tissue.png", "--model", folder / "sam", "--out", "x")
    assert code == 2
    assert "this is a sam: segmentation needs a CellViT" in err
