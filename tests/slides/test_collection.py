"""Which slides people mean."""

from pathlib import Path

import pytest

from cellvit_jax.errors import InputError
from cellvit_jax.slides.collection import Listed, find, slide_name


@pytest.fixture
def folder(tmp_path):
    for name in ("b.SVS", "a.ndpi", "c.png", "notes.txt", ".hidden.svs"):
        (tmp_path / name).touch()
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "d.svs").touch()
    return tmp_path


def names(found):
    return [one.path.name for one in found]


def test_files_are_taken_as_they_are(folder):
    assert names(find([folder / "b.SVS", folder / "notes.txt"])) == ["b.SVS", "notes.txt"]


def test_a_folder_is_its_slides(folder):
    assert names(find([folder])) == ["a.ndpi", "b.SVS", "c.png"]


@pytest.mark.parametrize("extension", ["svs", ".svs", "SVS", ".SVS"])
def test_extensions_in_any_case_with_or_without_the_dot(folder, extension):
    assert names(find([folder], [extension])) == ["b.SVS"]


def test_patterns(folder):
    assert names(find([folder / "**" / "*.[sS][vV][sS]"])) == ["b.SVS", "d.svs"]
    with pytest.raises(InputError, match="matches no slide"):
        find([folder / "*.tiff"])


def test_a_slide_named_twice_is_one(folder):
    assert names(find([folder / "a.ndpi", folder])) == ["a.ndpi", "b.SVS", "c.png"]


def test_a_folder_of_dicom_is_one_slide(folder):
    series = folder / "series"
    series.mkdir()
    for name in ("1.dcm", "2"):
        (series / name).write_bytes(bytes(128) + b"DICM")
    assert find([series]) == [Listed(series)]
    assert "series" in names(find([folder]))


LISTS = {
    "plain": "b.SVS,0.5\na.ndpi\n",
    "headed": "path,mpp\nb.SVS,0.5\na.ndpi,\n",
    "cellvit": "wsi_mpp,path\n0.5,b.SVS\n\n,a.ndpi\n",
    "bom": "\ufeffpath,mpp\nb.SVS,0.5\na.ndpi\n",
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_name_paths_and_resolutions(folder, kind):
    (folder / "list.csv").write_text(LISTS[kind])
    found = find([folder / "list.csv"])
    assert found == [Listed(folder / "b.SVS", 0.5), Listed(folder / "a.ndpi")]


@pytest.mark.parametrize("text", ["", "path,mpp\n"])
def test_an_empty_list_is_an_error(folder, text):
    (folder / "list.csv").write_text(text)
    with pytest.raises(InputError, match="names no slide"):
        find([folder / "list.csv"])


def test_a_list_with_a_word_for_a_number_is_an_error(folder):
    (folder / "list.csv").write_text("a.ndpi,fine")
    with pytest.raises(InputError, match=r"a\.ndpi,fine"):
        find([folder / "list.csv"])


def test_nothing_is_an_error(folder):
    with pytest.raises(InputError, match="at least one"):
        find([])
    with pytest.raises(InputError, match="holds no slide"):
        find([folder], ["mrxs"])


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/b.svs", "b"), ("b.ome.tiff", "b"), ("b.OME.TIF", "b"), ("x.y.png", "x.y")],
)
def test_names_are_without_the_ending(path, name):
    assert slide_name(Path(path)) == name
