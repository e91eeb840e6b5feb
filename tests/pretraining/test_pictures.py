"""Which pictures folders, lists and annotated data stand for."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("grain")

from cellvit_jax.errors import InputError
from cellvit_jax.pretraining.pictures import labelled, unlabelled
from cellvit_jax.training.config import Source


def draw(*paths: Path) -> None:
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 40, 3), number, np.uint8)).save(path)


def source(path: Path, split: str = "") -> Source:
    return Source(path=str(path), split=split)


def test_a_folder_is_its_images_and_annotated_data_its_training_part(tmp_path):
    draw(tmp_path / "plain/a.png", tmp_path / "plain/b.png")
    for split in ("train", "val"):
        for part in ("images", "masks"):
            draw(tmp_path / "data" / split / part / f"{split}.png")
    for path in (tmp_path / "data").rglob("masks/*.png"):
        Image.fromarray(np.ones((40, 40), np.uint16)).save(path)
    found = unlabelled([source(tmp_path / "plain"), source(tmp_path / "data")])
    assert [picture.name for picture in found] == ["a", "b", "field 1 of data"]
    assert found[1].open().read(0, 0, 1, 1).tolist() == [[[1, 1, 1]]]
    assert found[2].open().size == (40, 40)
    assert found[2].open().mpp == 0.25
    assert unlabelled([source(tmp_path / "data", "val")], mpp=0.5)[0].open().mpp == 0.5


def test_what_holds_no_pictures_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="holds no slide"):
        unlabelled([source(tmp_path)])
    with pytest.raises(InputError, match="say what to learn from"):
        unlabelled([])
    draw(tmp_path / "a.png")
    with pytest.raises(InputError, match="is no annotated data: it has no split 'val'"):
        unlabelled([source(tmp_path, "val")])


def test_a_folder_for_each_class_holds_some_of_each_out(tmp_path):
    draw(*(tmp_path / name / f"{i}.png" for name in ("Fat", "Gland") for i in range(5)))
    found = labelled(source(tmp_path), 0.4)
    assert found.classes == ("Fat", "Gland")
    assert [picture.label for picture in found.pictures] == [0] * 5 + [1] * 5
    assert found.measured.tolist() == [False] * 3 + [True] * 2 + [False] * 3 + [True] * 2
    assert not labelled(source(tmp_path), 0.0).measured.any()


def test_a_class_with_one_tile_is_learnt_and_not_measured_on(tmp_path):
    draw(*(tmp_path / "Fat" / f"{i}.png" for i in range(5)), tmp_path / "Gland" / "0.png")
    found = labelled(source(tmp_path), 0.4)
    assert [picture.label for picture in found.pictures] == [0] * 5 + [1]
    assert found.measured.tolist() == [False] * 3 + [True] * 2 + [False]


def test_folders_may_say_what_is_measured_on(tmp_path):
    draw(*(tmp_path / s / c / "a.png" for s in ("train", "val", "test") for c in ("Fat", "Gland")))
    found = labelled(source(tmp_path), 0.4)
    assert len(found.pictures) == 4
    assert found.measured.tolist() == [False, False, True, True]


def test_a_list_has_a_path_and_a_label_in_each_line(tmp_path):
    draw(tmp_path / "a.png", tmp_path / "deep/b.png")
    plain, full = tmp_path / "plain.csv", tmp_path / "full.csv"
    plain.write_text("a.png,Fat\ndeep/b.png,Gland\n")
    full.write_text("label,split,path\nGland,VAL,deep/b.png\nFat,train,a.png\n")
    assert [p.label for p in labelled(source(plain), 0.0).pictures] == [0, 1]
    found = labelled(source(full), 0.0)
    assert [p.label for p in found.pictures] == [1, 0]
    assert found.measured.tolist() == [True, False]
    assert found.pictures[0].open().read(0, 0, 1, 1).tolist() == [[[1, 1, 1]]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "names no tiles"),
        ("path,label\n", "names no tiles"),
        ("a.png\n", "no path,label: a.png"),
        ("a.png,Fat\nb.png,Fat\n", "has one class, Fat"),
        ("a.png,Fat,one\nb.png,Gland,two\n", "has the splits one, two: call them train and val"),
    ],
)
def test_a_list_that_says_nothing_is_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "tiles.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=sentence):
        labelled(source(path), 0.2)


def test_a_folder_without_classes_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="a folder of tiles for each class, or be a CSV file"):
        labelled(source(tmp_path), 0.2)
    with pytest.raises(InputError, match="cannot be read"):
        labelled(source(tmp_path / "nowhere"), 0.2)
