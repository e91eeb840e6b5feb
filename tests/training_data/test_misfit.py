"""Folders that lack something of a layout, stated or found: the error says what."""

import re
import shutil
from pathlib import Path

import pytest

from cellvit_jax.data import open_dataset, open_splits, tasks
from cellvit_jax.data.open import LAYOUTS
from cellvit_jax.errors import InputError
from tests.shared import DATA
from tests.training_data.makers import MAKERS, field, made, plain

NEEDS = [(name, need) for name, layout in LAYOUTS.items() for need in layout.needs]


def make(name: str, root: Path) -> None:
    """A small folder of any layout."""
    if name in MAKERS:
        made(name, root, height=48, width=48)
    elif name == "prepared":
        for need in LAYOUTS[name].needs:
            (root / need).write_text("{}")
    else:
        shutil.copytree(DATA / "cellvitpp" / "detection", root, dirs_exist_ok=True)


@pytest.fixture
def lacking(name, need, tmp_path):
    """The folder without one of the layout's needs."""
    make(name, tmp_path)
    assert LAYOUTS[name].named(tmp_path)
    for path in [*tmp_path.glob(need), *tmp_path.glob(f"*/{need}")]:
        if path.is_file():
            path.unlink()
    return tmp_path


@pytest.mark.parametrize(("name", "need"), NEEDS)
def test_a_stated_layout_says_what_it_needs_and_what_is_missing(lacking, name, need):
    needs = re.escape(", ".join(LAYOUTS[name].needs))
    there = re.escape(min(path.name for path in lacking.iterdir()))
    message = rf"the layout '{re.escape(name)}', which needs {needs}: it holds {there}.*\n"
    with pytest.raises(InputError, match=rf"{message}.* has no {re.escape(need)}; docs"):
        open_dataset(lacking, layout=name)


# without types, CoNSeP's label images are a plain folder
@pytest.mark.parametrize(
    ("name", "need"), [one for one in NEEDS if one != ("consep-png", "types/*.*")]
)
def test_what_is_missing_of_a_layout_that_is_not_stated_is_named(lacking, name, need):
    message = rf"(?m)'{re.escape(name)}': .* has .*, but no {re.escape(need)}$"
    with pytest.raises(InputError, match=message):
        open_splits(lacking)


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_layout_opens_an_empty_folder(name, tmp_path):
    with pytest.raises(InputError, match="it holds nothing\n"):
        open_dataset(tmp_path, "train", name)


def test_a_folder_of_another_layout_than_the_stated_one_is_not_inspected(tmp_path):
    made("plain", tmp_path)
    with pytest.raises(InputError, match="the layout 'monuseg', which needs"):
        tasks.inspect(tmp_path, layout="monuseg")


def test_the_layout_of_which_most_is_there_is_the_closest(tmp_path):
    made("pannuke", tmp_path)
    for path in tmp_path.rglob("types.npy"):
        path.unlink()
    with pytest.raises(InputError, match=r"closest is 'pannuke': .*\nknown are"):
        open_splits(tmp_path)


def test_types_without_masks_are_as_close_to_plain_as_to_consep(tmp_path):
    plain(tmp_path, field())
    shutil.rmtree(tmp_path / "masks")
    with pytest.raises(InputError, match=r"'plain': .* has images/\*\.\*, but no masks/\*\.\*"):
        open_splits(tmp_path)


@pytest.mark.parametrize("stated", [None, "cellvit++"])
def test_labels_in_another_folder_than_the_images_are_no_split(stated, tmp_path):
    made("cellvit++", tmp_path)
    shutil.rmtree(tmp_path / "train" / "labels")
    shutil.rmtree(tmp_path / "test" / "images")
    with pytest.raises(InputError, match="not in the folders that belong together"):
        open_dataset(tmp_path, layout=stated)


def test_outlines_that_lie_too_deep_are_no_split(tmp_path):
    made("monuseg", tmp_path / "a" / "b")
    with pytest.raises(InputError, match=r"'monuseg', which needs \*\*/\*\.xml: it holds a/"):
        open_dataset(tmp_path)
