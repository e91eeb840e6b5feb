import dataclasses
import re

import numpy as np
import pytest
from PIL import Image

from cellvit_jax.data import Dataset, inspection, sheet
from cellvit_jax.data.census import census, nuclei
from cellvit_jax.data.open import open_splits
from tests.shared import DATA
from tests.training_data.makers import field


def summary(*samples, **facts) -> inspection.Summary:
    splits = {"all": Dataset("made", samples or [field()], ("a", "b"), **facts)}
    return inspection.inspect("made", "plain", splits)


def test_nuclei_are_counted_by_the_type_of_most_pixels():
    instances = np.zeros((8, 8), np.int32)
    instances[0, :4], instances[2, :4], instances[4, :3] = 3, 7, 9
    types = np.zeros((8, 8), np.uint8)
    types[0, :4], types[2, :2] = [2, 2, 2, 1], [2, 1]
    areas, kinds = nuclei(dataclasses.replace(field(), instances=instances, types=types))
    assert (areas.tolist(), kinds.tolist()) == ([4, 4, 3], [2, 1, 0])


def test_an_empty_field_has_no_nuclei():
    empty = np.zeros((96, 128), np.int32)
    counted = census(dataclasses.replace(field(), instances=empty))
    assert (len(counted), len(counted.areas), counted.pieces) == (0, 0, 0)


def test_points_are_counted_too():
    (sample,) = open_splits(DATA / "cellvitpp" / "detection")["train"].samples
    counted = census(sample)
    assert counted.types.tolist() == sample.points[:, 2].tolist()
    assert counted.typed


def test_the_text_says_what_there_is():
    text = str(summary(mpp=0.5, tissues=("Colon", "Skin"), license="CC0"))
    tissue = str(summary(dataclasses.replace(field(), tissue=1), tissues=("Colon", "Skin")))
    for row in ("0.5 µm", "CC0", "1 a, 2 b", "96 × 128", "outlined"):
        assert row in text
    rows = {line[:22].strip(): line[22:].split() for line in text.splitlines()}
    assert rows["nuclei"] == ["20"]
    assert rows["a"] == ["10", "(50%)"]
    assert "fields of Skin" in tissue


def bare(**changes):
    return dataclasses.replace(field(), name="odd", **changes)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (bare(instances=np.zeros((96, 128), np.int32)), r"without any nucleus: 1 \(odd\)"),
        (bare(types=None), r"without types: 1 \(odd\)"),
        (bare(types=np.zeros((96, 128), np.uint8)), "nuclei without a type: 20"),
        (bare(types=np.uint8(field().types > 0)), "classes without a nucleus: b"),
        (bare(instances=np.int32(field().instances > 0)), "more pieces than ids"),
    ],
)
def test_what_is_odd_is_said(odd, message):
    text = " ".join(summary(odd).warnings())
    assert re.search(message, text), text


def test_sound_data_has_no_warnings():
    assert summary().warnings() == []
    assert summary(field(typed=False)).warnings() != []


def test_an_image_in_two_splits_is_said():
    other = dataclasses.replace(field(), image=255 - field().image)
    splits = {
        "train": Dataset("made", [field(), other], ("a", "b")),
        "val": Dataset("made", [field()], ("a", "b")),
    }
    (warning,) = inspection.inspect("made", "plain", splits).warnings()
    assert "more than once: 1, such as train/made, val/made" in warning


def test_the_sheet_shows_nuclei_in_the_colours_of_the_legend(tmp_path):
    sheet.write(summary(), tmp_path / "sheet.png")
    page = np.asarray(Image.open(tmp_path / "sheet.png"))
    for colour in ((255, 0, 0), (34, 221, 77)):
        columns = np.argwhere((page == colour).all(-1))[:, 1]
        assert (columns < 480).any()
        assert (columns > 480).any()


def test_the_sheet_shows_points(tmp_path):
    points = open_splits(DATA / "cellvitpp" / "detection")
    counted = inspection.inspect("points", "cellvit++-points", points)
    sheet.write(counted, tmp_path / "points.png")
    page = np.asarray(Image.open(tmp_path / "points.png"))
    assert (page == (35, 92, 236)).all(-1).sum() > 100


@pytest.mark.parametrize(("fields", "pictures"), [(1, 4), (2, 8), (5, 10), (13, 12)])
def test_of_a_large_field_parts_are_shown_where_there_are_few(fields, pictures, monkeypatch):
    seen = []
    monkeypatch.setattr(sheet.contact_sheet, "write", lambda panels, *_: seen.extend(panels))
    sheet.write(summary(*[field(520, 600)] * fields), "unused.png")
    assert {panel.image.shape for panel in seen} == {(256, 256, 3)}
    assert len(seen) == pictures


@pytest.mark.parametrize(
    ("sizes", "shares"), [([15, 3], [9, 3]), ([1], [1]), ([50], [12]), ([9] * 3, [4] * 3)]
)
def test_small_splits_leave_their_pictures_to_others(sizes, shares):
    assert sheet._shares(sizes) == shares
