"""From embeddings on the disk to a report, a probe, and what it says of other slides."""

import csv
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import cellvit_jax as cj
from cellvit_jax.errors import InputError, OutputError
from cellvit_jax.models import Abmil, LinearProbe
from cellvit_jax.probes import heatmap, linear
from cellvit_jax.probes.bags import Patches, find, read
from cellvit_jax.probes.gather import gather
from cellvit_jax.probes.tasks import check_replaceable, intervals, measure
from tests.probes.makers import bags, cohort, table, vectors, write
from tests.terminal import warned

pytest.importorskip("matplotlib")
SMALL = ("--hidden-dim", "8", "--attention-dim", "4", "--epochs", "8", "--learning-rate", "0.01")
SMALL += ("--batch-size", "4")


@pytest.fixture
def call(call):
    """The command as in a terminal."""
    return warned(call)


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    return cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture
def labels(tmp_path):
    return table(tmp_path / "grade.csv", *(f"s{i},{'low' if i % 2 else 'high'}" for i in range(12)))


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("method", ["linear", "knn", pytest.param("abmil", marks=pytest.mark.slow)])
def test_a_report_and_a_probe_that_predicts(method, call, slides, labels, tmp_path):
    options = ()
    if method == "abmil":
        pytest.importorskip("optax")
        options = SMALL
    out = tmp_path / "run"
    given = ("--embeddings", slides, "--labels", labels, "--out", out, "--folds", "2")
    code, said, errors = call("probe", method, *given, *options)
    assert code == 0, errors
    assert "cross-validation, 2 folds: 12 slides, accuracy 1.000 (1.000–1.000)" in said
    report = json.loads((out / "report.json").read_text())
    assert report["classes"] == ["high", "low"]
    assert "| high | 6 |" in (out / "report.md").read_text()
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
    scored = rows_of(out / "predictions.csv")
    assert [row["label"] for row in scored] == [row["predicted"] for row in scored]
    assert {row["fold"] for row in scored} == {"0", "1"}
    assert call("probe", method, *given)[0] == 2  # it is there already
    if method == "knn":
        assert not (out / "config.json").exists()
        return
    assert isinstance(cj.load(out), {"linear": LinearProbe, "abmil": Abmil}[method])
    assert "high, low" in call("inspect", out)[1]
    image = tmp_path / "images" / "s0.png"
    image.parent.mkdir()
    Image.new("RGB", (1024, 512), (200, 120, 180)).save(image)
    new, few = tmp_path / "new", tmp_path / "few"
    for name in ("s0", "s1"):
        shutil.copytree(slides / name, few / name)
    places = ("--probe", out, "--embeddings", few, "--out", new, "--slides", image.parent)
    code, said, errors = call("probe", "predict", *places)
    assert code == 0, errors
    assert "2 of 2 slides" in said
    assert [row["predicted"] for row in rows_of(new / "predictions.csv")] == ["high", "low"]
    patches = pq.read_table(new / "s0" / "patches.parquet").to_pydict()
    kind = {"linear": "high", "abmil": "attention"}[method]
    assert len(patches[kind]) == 8
    if method == "abmil":
        assert sum(patches[kind]) == pytest.approx(1, abs=1e-5)
    with Image.open(new / "s0" / "heatmap.png") as picture:
        assert picture.width > 500


def test_what_has_to_be_left_aside_is_said(call, slides, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(slides, mixed)
    rows = vectors(np.zeros(4, int))
    rows[1, 2] = np.nan
    write(mixed, "torn", rows)
    write(mixed, "blank", rows[:0])
    lines = [f"s{i},{'low' if i % 2 else 'high'}" for i in range(1, 12)]
    path = table(tmp_path / "t.csv", *lines, "torn,high", "blank,low", "gone,low")
    given = ("--embeddings", mixed, "--labels", path, "--out", tmp_path / "out", "--l2", "0.1")
    code, printed, said = call("probe", "linear", *given, "--quiet")
    assert (code, printed) == (0, ""), said
    for part in ("no embeddings: gone", "no label: s0", "patch: blank", "1 patches have vectors"):
        assert part in said
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(report["left_aside"]) == 4
    names = [row["slide"] for row in rows_of(tmp_path / "out" / "predictions.csv")]
    assert sorted(names) == sorted([f"s{i}" for i in range(1, 12)] + ["torn"])
    for i in range(12):
        shutil.rmtree(mixed / f"s{i}")
    given = ("--probe", tmp_path / "out", "--embeddings", mixed, "--out", tmp_path / "new")
    code, said, errors = call("probe", "predict", *given)
    assert (code, "1 of 2 slides" in said) == (0, True), errors
    assert "blank has no usable patch" in errors


def test_single_patches_may_have_labels(call, slides, tmp_path):
    lines = [f"s{i},{n},{'low' if i % 2 else 'high'}" for i in range(6) for n in (1, 5, 8)]
    path = table(tmp_path / "t.csv", *lines, head="slide,patch,label")
    given = ("--embeddings", slides, "--labels", path, "--out", tmp_path / "out")
    code, said, errors = call("probe", "linear", *given, "--l2", "0.1", "--folds", "3")
    assert (code, "18 patches" in said) == (0, True), errors
    (part,) = json.loads((tmp_path / "out" / "report.json").read_text())["scores"].values()
    assert part["accuracy"] > 0.8
    assert rows_of(tmp_path / "out" / "predictions.csv")[0]["patch"].count("/") == 1
    found = gather(slides, path).bags
    np.testing.assert_array_equal(found.vectors[1], read(find(slides)["s0"]).vectors[4])
    with pytest.raises(InputError, match="no patch 9"):
        gather(slides, table(tmp_path / "u.csv", "s0,9,a", head="slide,patch,label"))


def test_two_networks_are_not_mixed(call, slides, labels, tmp_path):
    other = cohort(tmp_path / "other", slides=4)
    shutil.rmtree(other / "s1")
    write(other, "s1", vectors(np.zeros(3, int)), model="another")
    with pytest.raises(InputError, match="not embedded in the same way"):
        gather(other, labels)
    shutil.rmtree(other / "s1")
    write(other, "s1", np.ones((3, 5)))
    with pytest.raises(InputError, match="have 5 numbers, those of s0 6"):
        gather(other, labels)
    out = tmp_path / "run"
    assert call("probe", "linear", "--embeddings", slides, "--labels", labels, "--out", out,
                "--l2", "1", "--quiet")[0] == 0  # fmt: skip
    for name, kind in (("model", "another"), ("width", "abc")):
        place = tmp_path / name
        write(place, "s0", np.ones((3, 6 if name == "model" else 4)), model=kind)
        code, _, errors = call(
            "probe", "predict", "--probe", out, "--embeddings", place, "--out", tmp_path / "new"
        )
        assert (code, "another" in errors) == (2, True)
    code, _, errors = call(
        "probe", "predict", "--probe", "cellvit-tiny-consep", "--embeddings", slides, "--out",
        tmp_path / "new",
    )  # fmt: skip
    assert (code, "is no probe" in errors) == (2, True)


def test_only_results_are_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(OutputError, match=r"holds no report\.json"):
        check_replaceable(tmp_path / "mine", "report.json", True)
    (tmp_path / "mine" / "report.json").touch()
    check_replaceable(tmp_path / "mine", "report.json", True)
    with pytest.raises(OutputError, match="--overwrite"):
        check_replaceable(tmp_path / "mine", "report.json", False)


def test_what_cannot_be(slides, tmp_path):
    with pytest.raises(InputError, match=r"holds no embeddings\.parquet"):
        find(tmp_path)
    with pytest.raises(InputError, match="no slide in common"):
        gather(slides, table(tmp_path / "a.csv", "x,a", "y,b"))
    with pytest.raises(InputError, match="two classes or more"):
        gather(slides, table(tmp_path / "b.csv", "s0,a", "s1,a"))
    path = table(tmp_path / "c.csv", "s0,a,p", "s1,b,p", head="slide,label,patient")
    one = gather(slides, path)
    with pytest.raises(InputError, match="all slides are of one patient"):
        measure(one, linear.Recipe())
    cells = tmp_path / "cells.parquet"
    pq.write_table(pq.read_table(find(slides)["s0"]).drop_columns(["side"]), cells)
    with pytest.raises(InputError, match="--level patches"):
        read(cells)


def test_a_class_of_one_patient_is_missed_and_said(slides, tmp_path):
    lines = (*(f"s{i},{'low' if i % 2 else 'high'}" for i in range(7)), "s8,odd")
    data = gather(slides, table(tmp_path / "t.csv", *lines))
    with pytest.warns(UserWarning, match="odd: too few patients"):
        found = measure(data, linear.Recipe(l2=0.1))
    assert sorted(found.rows.tolist()) == list(range(8))
    assert np.isfinite(found.chances).all()
    odd = found.chances[found.rows == 7, data.classes.index("odd")]
    assert odd < 1e-6  # it was scored by the fold that had not seen any


def test_intervals_draw_whole_patients():
    data = bags([0, 1] * 10, [1] * 20, groups=np.repeat([0, 1], 10))
    chances = np.eye(2)[data.labels]
    chances[10:] = chances[10:, ::-1]  # of one patient all is right, of the other all is wrong
    assert intervals(data, chances)["accuracy"] == (0, 1)


def test_overlapping_patches_are_averaged_where_they_lie():
    centres = np.array([[1.5, 1.5], [3.5, 1.5]])
    patches = Patches(np.array([1, 2]), centres, np.array([4.0, 4.0]), np.zeros((2, 1)))
    found = heatmap.painted(patches, np.array([1.0, 3.0]), (5, 8), 1.0)
    expected = np.full((5, 8), np.nan)
    expected[:4] = [1, 1, 2, 2, 3, 3, np.nan, np.nan]
    np.testing.assert_array_equal(found, expected)
    assert heatmap.extent(patches) == (4, 6)
