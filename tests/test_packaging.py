"""What a wheel holds, and what importing the package costs."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"jax", "flax", "orbax", "numba", "cv2", "pyarrow", "PIL", "tifffile", "shapely", "rich"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> set[str]:
    """The names of the files in a wheel of this checkout, built without a network."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def test_the_wheel_claims_two_import_names(wheel):
    top = {name.split("/")[0] for name in wheel}
    assert {name for name in top if not name.endswith(".dist-info")} == {
        "cellvit_jax",
        "cellvit_convert",
    }


def test_the_wheel_holds_every_source_file_and_asset(wheel):
    for package in (ROOT / "cellvit_jax", ROOT / "convert" / "cellvit_convert"):
        files = {p for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
        assert {str(path.relative_to(package.parent)) for path in files} <= wheel


def test_the_wheel_holds_the_licence_the_notice_and_the_type_markers(wheel):
    names = {name.split("licenses/")[-1] for name in wheel}
    assert {"LICENSE", "NOTICE", "cellvit_jax/py.typed", "cellvit_convert/py.typed"} <= names


@pytest.mark.parametrize("package", ["cellvit_jax", "cellvit_convert"])
def test_importing_the_package_imports_nothing_heavy(package):
    code = f"import sys, {package}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert package in done.stdout.split()
    assert not HEAVY & set(done.stdout.split())


def test_extras_that_errors_may_name_are_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"anndata", "export", "spatialdata", "tiff", "train", "cuda12", "cuda13", "tpu"} <= set(
        project["optional-dependencies"]
    )
