"""The command line: what it writes, and one clear sentence for everything that goes wrong."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image

from cellvit_jax import __version__, zoo
from cellvit_jax.exports import read_cells
from cellvit_jax.inference import progress
from tests.networks import save_encoder, save_head, save_small
from tests.terminal import warned

ALWAYS = {"report.json", "tissue.png"}
FILES = {"cells.parquet", "cells.geojson", "cells.json", "instances.tif", "overlay.png", *ALWAYS}


@pytest.fixture
def call(call):
    """The command as in a terminal."""
    return warned(call)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "model"
    save_small(path)
    return path


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "tissue.png"
    pixels = np.random.default_rng(0).integers(0, 256, (80, 70, 3), np.uint8)
    Image.fromarray(pixels).save(path, dpi=(101600, 101600))
    return path


def test_segment_writes_every_file_and_says_what_it_found(
    call, image, model, tmp_path, monkeypatch
):
    monkeypatch.setattr(progress, "PAUSE", math.inf)  # a machine that stands still says so
    code, out, err = call("segment", image, "--out", tmp_path / "out", "--model", model)
    assert (code, err) == (0, "")
    folder = tmp_path / "out" / "tissue"
    assert {path.name for path in folder.iterdir()} == FILES
    cells = read_cells(folder)
    assert f"tissue: {len(cells)} cells (" in out
    assert f"{folder}/: cells.geojson, cells.json, cells.parquet" in out
    assert json.loads((folder / "report.json").read_text())["cells"] == len(cells)
    assert len(json.loads((folder / "cells.geojson").read_text())["features"]) == len(cells)
    assert len(json.loads((folder / "cells.json").read_text())["cells"]) == len(cells)
    labels = tifffile.imread(folder / "instances.tif")
    assert labels.dtype == np.uint32
    assert set(np.unique(labels)) - {0} == set(cells.column("id"))
    assert pq.read_schema(folder / "cells.parquet").metadata[b"format_version"]


def test_export_chooses_the_files(call, image, model, tmp_path):
    arguments = ("segment", image, "--out", tmp_path, "--model", model)
    assert call(*arguments, "--export", "geojson", "overlay")[0] == 0
    files = {path.name for path in (tmp_path / "tissue").iterdir()}
    assert files == {"cells.geojson", "overlay.png", *ALWAYS}


def test_results_are_not_overwritten_unasked(call, image, model, tmp_path):
    arguments = ("segment", image, "--out", tmp_path, "--model", model, "--export", "parquet")
    assert call(*arguments)[0] == 0
    code, out, _ = call(*arguments)
    assert (code, out) == (0, "tissue: done before\n")
    code, _, err = call(*arguments, "--mpp", "0.5")
    assert code == 2
    assert "mpp 0.25, now 0.5" in err
    assert "--overwrite" in err
    assert "dtype float32, now bfloat16" in call(*arguments, "--dtype", "bfloat16")[2]
    assert call(*arguments, "--mpp", "0.5", "--overwrite", "--dtype", "bfloat16")[0] == 0
    (tmp_path / "tissue" / "report.json").unlink()
    assert "is there already" in call(*arguments, "--mpp", "0.5")[2]


def test_types_of_a_head_and_none_at_all(call, image, model, tmp_path):
    save_head(tmp_path / "head", token_dim=16)
    arguments = ("segment", image, "--model", model, "--export", "parquet", "--out")
    code, out, _ = call(*arguments, tmp_path / "a", "--head", tmp_path / "head")
    assert code == 0
    assert "stroma)" in out
    code, out, _ = call(*arguments, tmp_path / "b", "--binary")
    assert code == 0
    assert "nucleus)" in out
    code, _, err = call(*arguments, tmp_path / "b", "--head", tmp_path / "head")
    assert code == 2
    assert "(head None, now" in err
    assert "binary True, now False)" in err
    code, _, err = call(*arguments, tmp_path / "c", "--head", model)
    assert code == 2
    assert "no cell classifier head" in err


def test_init_makes_a_model_to_be_trained(call, tmp_path):
    encoder = save_encoder(tmp_path / "enc", encoder="sam")
    arguments = ("init", "--encoder", encoder, "--out", tmp_path / "new", "--classes", "A", "B")
    code, out, err = call(*arguments)
    assert (code, err) == (0, "")
    assert "cellvit_sam" in out
    assert "classes      A, B" in out
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert "exists" in err


def test_quiet_prints_nothing(call, image, model, tmp_path):
    arguments = ("segment", image, "--out", tmp_path, "--model", model, "--quiet")
    assert call(*arguments, "--export", "parquet") == (0, "", "")


def test_an_image_without_resolution_is_warned_about_on_stderr(call, model, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "plain.png")
    arguments = ("segment", tmp_path / "plain.png", "--out", tmp_path / "out", "--model", model)
    code, _, err = call(*arguments)
    assert code == 0
    assert err.startswith("cellvit-jax: plain does not say its resolution")


def png(path: Path, size=(64, 64)) -> bytes:
    Image.effect_noise(size, 50).convert("RGB").save(path)
    return path.read_bytes()


def truncated_png(path: Path) -> None:
    path.write_bytes(png(path)[:2000])


def truncated_tiff(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:3000])


def bomb(path: Path) -> None:
    """A TIFF that says it is 40,000 × 40,000 in one strip."""
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for tag in ("ImageWidth", "ImageLength"):
            tiff.pages.first.tags[tag].overwrite(40_000)


BAD_IMAGES = {
    "missing.png": (lambda path: None, "missing.png"),
    "folder.png": (Path.mkdir, "folder"),
    "empty.png": (Path.touch, "empty"),
    "cut.png": (truncated_png, "cut.png"),
    "cut.tif": (truncated_tiff, "cut.tif"),
    "text.png": (lambda path: path.write_text("not an image"), "text.png"),
    "small.png": (lambda path: png(path, (15, 40)), "at least 16"),
    "bomb.tif": (bomb, "40,000 × 40,000"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_a_bad_image_is_one_sentence_and_leaves_nothing(call, model, tmp_path, name):
    make, part = BAD_IMAGES[name]
    make(tmp_path / name)
    out = tmp_path / "out"
    code, printed, err = call("segment", tmp_path / name, "--out", out, "--model", model)
    assert (code, printed) == (2, "")
    assert err.startswith("cellvit-jax: ")
    assert part in err
    assert err.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--mpp", "0"), "resolution"),
        (("--mpp", "-1"), "resolution"),
        (("--mpp", "nan"), "resolution"),
        (("--batch-size", "0"), "batch-size"),
        (("--attention", "cudnn"), "cudnn attention needs a CUDA device"),
        (("--tissue", "no such mask"), "cannot be read"),
        (("--roi", "9000,9000,5,5"), "does not lie in"),
        (("--binary", "--head", zoo.DEFAULT), "choose one of the two"),
        (("--model", "cellvit-tiny-consap"), "did you mean cellvit-tiny-consep"),
        (("--model", "cellvit-sam-h-x40"), "cellvit-convert"),
    ],
)
def test_a_bad_option_is_one_sentence(call, image, tmp_path, options, part):
    code, printed, err = call("segment", image, "--out", tmp_path / "out", *options)
    assert (code, printed) == (2, "")
    assert part in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_made_is_known_at_once(call, image, model, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = call("segment", image, "--out", tmp_path / "file" / "out", "--model", model)
    assert code == 2
    assert "cannot write" in err


def test_no_image_is_an_error(call, tmp_path):
    code, _, err = call("segment", "--out", tmp_path)
    assert code == 2
    assert "at least one image" in err


def test_equal_names_are_refused(call, image, model, tmp_path):
    other = tmp_path / "more" / image.name
    other.parent.mkdir()
    other.write_bytes(image.read_bytes())
    code, _, err = call("segment", image, other, "--out", tmp_path / "out", "--model", model)
    assert code == 2
    assert "rename" in err


@pytest.mark.parametrize("kind", ["rotated.jpg", "cmyk.jpg", "grey.png", "rgba.png"])
def test_other_kinds_of_pixels_are_handled(call, model, tmp_path, kind):
    mode = {"cmyk.jpg": "CMYK", "grey.png": "L", "rgba.png": "RGBA"}.get(kind, "RGB")
    exif = Image.Exif()
    exif[0x0112] = 6 if kind == "rotated.jpg" else 1
    Image.new(mode, (80, 64)).save(tmp_path / kind, exif=exif)
    arguments = ("segment", tmp_path / kind, "--out", tmp_path, "--model", model, "--mpp", "0.25")
    assert call(*arguments, "--export", "instances")[0] == 0
    shape = tifffile.imread(tmp_path / Path(kind).stem / "instances.tif").shape
    assert shape == ((80, 64) if kind == "rotated.jpg" else (64, 80))


def test_version(call):
    assert call("--version")[1] == f"cellvit-jax {__version__}\n"


def test_info_names_devices_models_and_the_cache(call):
    out = call("info")[1]
    assert zoo.DEFAULT in out
    assert "cpu:0" in out
    assert "CELLVIT_JAX_CACHE" in out


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['cellvit-jax', '--help']\n"
        "from cellvit_jax import cli\n"
        "try: cli.main()\n"
        "except SystemExit: print(sorted({'jax', 'numpy', 'numba', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
