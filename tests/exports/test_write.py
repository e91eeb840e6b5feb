import numpy as np
import pytest

from cellvit_jax import exports
from cellvit_jax.errors import InputError, OutputError
from cellvit_jax.exports import labels, overlay
from cellvit_jax.files import atomic_open
from tests.exports.samples import sample

NAMES = ["cells.parquet", "cells.geojson", "Cells.GeoJSON.gz", "cells.json", "cell_detection.json"]


@pytest.mark.parametrize("name", NAMES)
def test_the_ending_picks_the_format_and_the_old_file_is_replaced(name, tmp_path):
    (tmp_path / name).write_text("old")
    exports.write(sample(), tmp_path / name)
    assert (tmp_path / name).stat().st_size > 200
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_equal_cells_make_equal_files(name, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        exports.write(sample(), tmp_path / folder / name)
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_unknown_ending_is_refused_with_those_that_exist(tmp_path):
    with pytest.raises(InputError, match=r"\.parquet, \.geojson, .*\.json"):
        exports.write(sample(), tmp_path / "cells.csv")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_cannot_be_written_to_is_named(name, tmp_path):
    (tmp_path / "file").write_text("no folder")
    for folder in ("absent", "file"):
        with pytest.raises(OutputError, match=f"{folder}.* cannot be written: "):
            exports.write(sample(), tmp_path / folder / name)


def test_pictures_too(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        labels.write(np.zeros((8, 8), int), tmp_path / "absent" / "instances.tif")
    with pytest.raises(OutputError, match="cannot be written"):
        overlay.write(sample(), np.zeros((8, 8, 3), np.uint8), tmp_path / "absent" / "overlay.png")


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "cells.json"
    path.write_text("old")

    def fail_half_way():
        with atomic_open(path) as file:
            file.write(b"new")
            raise ValueError("a fault of the writer")

    with pytest.raises(ValueError, match="a fault"):
        fail_half_way()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["cells.json"]
