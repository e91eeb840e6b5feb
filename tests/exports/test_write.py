import gc

import numpy as np
import pytest

from cellvit_jax import exports
from cellvit_jax.errors import InputError, OutputError
from cellvit_jax.exports import labels, overlay
from cellvit_jax.files import atomic_open, replacing
from tests.exports.samples import VARIANTS, in_blocks, sample

NAMES = [
    "cells.parquet",
    "cells.geojson",
    "Cells.GeoJSON.gz",
    "cells.json",
    "cell_detection.json",
    "cells.csv",
    "graph.npz",
]


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


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_blocks_make_the_same_file(name, variant, tmp_path):
    cells = VARIANTS[variant]
    exports.write(cells, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    exports.write(in_blocks(cells, 5), tmp_path / name)
    assert (tmp_path / name).read_bytes() == whole


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("cells.parquet", 66_000),
        ("cells.geojson", 17_000),
        ("cells.json", 17_000),
        ("cells.csv", 66_000),
    ],
)
def test_blocks_of_another_size_than_the_batches_make_the_same_file(name, count, tmp_path):
    cells = sample(count, probabilities=False)
    exports.write(cells, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    exports.write(in_blocks(cells, 9_999), tmp_path / name)
    assert (tmp_path / name).read_bytes() == whole


@pytest.mark.parametrize("name", NAMES)
def test_a_source_that_fails_leaves_nothing(name, tmp_path):
    def failing():
        yield sample()
        raise ValueError("a fault of the source")

    with pytest.raises(ValueError, match="a fault"):
        exports.write(failing(), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_blocks_of_different_columns_and_no_block_are_refused(name, tmp_path):
    with pytest.raises(InputError, match="must be the same"):
        exports.write([sample(), sample(tokens=4)], tmp_path / name)
    with pytest.raises(InputError, match="no block"):
        exports.write([], tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_as_it_was(enabled, tmp_path):
    collected = []

    def watching():
        for block in in_blocks(sample(20_000), 9_000):
            collected.append(gc.isenabled())
            yield block

    if not enabled:
        gc.disable()
    try:
        exports.write(watching(), tmp_path / "cells.geojson")
        assert {*collected, gc.isenabled()} == {enabled}
    finally:
        gc.enable()


def test_an_unknown_ending_is_refused_with_those_that_exist(tmp_path):
    with pytest.raises(InputError, match=r"\.parquet, \.geojson, .*\.json"):
        exports.write(sample(), tmp_path / "cells.xlsx")
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


@pytest.mark.parametrize("fails", [True, False])
def test_a_folder_is_replaced_whole_or_not_at_all(fails, tmp_path):
    path = tmp_path / "cells.zarr"
    path.mkdir()
    (path / "old").touch()

    def fill():
        with replacing(path) as partial:
            partial.mkdir()
            (partial / "new").touch()
            if fails:
                raise ValueError("a fault of the writer")

    if fails:
        with pytest.raises(ValueError, match="a fault"):
            fill()
    else:
        fill()
    assert [entry.name for entry in path.iterdir()] == ["old" if fails else "new"]
    assert list(tmp_path.iterdir()) == [path]
