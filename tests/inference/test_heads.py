"""Types from a classifier head, and no types at all."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest

import cellvit_jax as cj
from cellvit_jax import zoo
from cellvit_jax.cells import joined
from cellvit_jax.errors import InputError
from cellvit_jax.inference.classify import ROWS, _softmax, classify, probabilities, remark
from cellvit_jax.inference.pipeline import rows, tokens_of
from cellvit_jax.inference.plan import planned
from cellvit_jax.inference.predictor import Predictor
from cellvit_jax.inference.report import Report
from cellvit_jax.inference.run import Options, Task
from cellvit_jax.inference.segment import predictor_of, segment_image
from cellvit_jax.slides import ImageSlide, Tile, open_image
from cellvit_jax.slides.collection import Listed
from tests.inference import free
from tests.inference.free import FreeNetwork, tissue, write_slide
from tests.networks import CARD, inference, make, save_head, small_config

NAMES = ("Tumour", "Immune", "Stroma")


@pytest.fixture(scope="module")
def model():
    return cj.load(zoo.DEFAULT)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.ascontiguousarray(open_image(zoo.ASSETS / "he-consep.png").pixels[:256, :256])


@pytest.fixture(scope="module")
def head_folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("head") / "head"
    save_head(path, token_dim=128)
    return path


@pytest.fixture(scope="module")
def head(head_folder):
    return cj.load(head_folder)


def by_hand(model, head, pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Softmax of the head for each box, from one look at the whole image."""
    tokens = np.asarray(model((pixels[None] / 255 - 0.5) / 0.5, tokens=True)["tokens"])[0]
    expected = []
    for r0, c0, r1, c1 in boxes:
        touched = tokens[r0 // 16 : -(-r1 // 16), c0 // 16 : -(-c1 // 16)]
        token = touched.mean((0, 1))
        hidden = np.maximum(token @ head.fc1.kernel[...] + head.fc1.bias[...], 0)
        logits = hidden @ head.fc2.kernel[...] + head.fc2.bias[...]
        expected.append(np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum())
    return np.array(expected)


def boxes_of(cells) -> np.ndarray:
    return np.stack([cells.column(f"bbox_{side}") for side in ("r0", "c0", "r1", "c1")], 1)


def test_types_are_those_of_the_head(model, head, pixels) -> None:
    cells = cj.segment(pixels, model, mpp=0.25, head=head)
    expected = by_hand(model, head, pixels, boxes_of(cells))
    found = np.array(cells.table["probabilities"].to_pylist())
    assert len(cells) > 30
    np.testing.assert_allclose(found[:, 1:], expected, atol=1e-5)
    assert (found[:, 0] == 0).all()
    np.testing.assert_array_equal(cells.column("type"), 1 + expected.argmax(1))
    np.testing.assert_allclose(cells.column("type_prob"), expected.max(1), atol=1e-5)
    assert len(set(cells.column("type"))) > 1
    assert [name for name, _ in cells.classes.values()] == list(NAMES)
    assert "token" not in cells.table.schema.names


def test_all_else_stays_as_it_was(model, head, pixels) -> None:
    typed = cj.segment(pixels, model, mpp=0.25, head=head).table
    plain = cj.segment(pixels, model, mpp=0.25).table
    kept = [name for name in plain.schema.names if "type" not in name and name != "probabilities"]
    assert typed.select(kept).equals(plain.select(kept))


def test_tiles_and_batches_do_not_matter(model, head, pixels) -> None:
    image = open_image(zoo.ASSETS / "he-consep.png")
    one, other = (segment_image(image, predictor_of(model, n, head=head)).cells for n in (1, 3))
    assert len(one) == len(other)
    assert (one.column("type") == other.column("type")).mean() > 0.99
    # a cell deep inside a tile has the tokens that this tile alone gives it
    alone = cj.segment(pixels, model, mpp=0.25, head=head)
    first, second = (
        {tuple(box): p for box, p in zip(boxes_of(c), c.column("type_prob"), strict=True)}
        for c in (one, alone)
    )
    inside = [b for b in first.keys() & second if max(b) < 200]
    assert len(inside) > 20
    np.testing.assert_allclose([first[b] for b in inside], [second[b] for b in inside], atol=1e-4)


def test_an_image_at_another_resolution(model, head, pixels) -> None:
    fine = np.kron(pixels, np.ones((2, 2, 1), np.uint8))
    cells = cj.segment(fine, model, mpp=0.125, head=head)
    assert len(cells) > 30
    assert cells.column("bbox_r1").max() > 256
    assert set(cells.column("type")) <= {1, 2, 3}


@pytest.mark.parametrize("kind", ["head", "binary"])
def test_a_slide_goes_the_way_of_an_image(model, head, pixels, tmp_path, kind: str) -> None:
    options = {"head": head} if kind == "head" else {"binary": True}
    slide = write_slide(tmp_path / "slide.tif", pixels)
    found = cj.segment(slide, model, tissue="none", **options)
    image = cj.segment(pixels, model, mpp=0.25, **options)
    assert found.table.equals(image.table)
    assert found.classes == image.classes


def test_bands_and_batches_do_not_change_a_type(tmp_path) -> None:
    save_head(tmp_path / "head", token_dim=3)
    head = cj.load(tmp_path / "head")
    plan = planned(ImageSlide("a", tissue(500, 700), 0.25), free.CARD)
    plain, *typed = (
        joined(row.table for row in rows(plan, network, Report("a")))
        for network in (
            FreeNetwork(with_tokens=True),
            FreeNetwork(with_tokens=True, head=head),
            FreeNetwork(with_tokens=True, head=head, tokens=False, batch_size=3),
        )
    )
    expected = classify(plain, head, keep_tokens=True)
    assert typed[0].equals(expected)
    assert typed[1].equals(expected.drop_columns(["token"]))


@pytest.mark.parametrize("count", [0, 1, ROWS, ROWS + 1])
def test_any_number_of_cells_takes_one_program(head, count: int) -> None:
    tokens = np.random.default_rng(0).normal(size=(count, 128)).astype(np.float32)
    found = probabilities(head, tokens)
    assert found.shape == (count, 4)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    before = _softmax._cache_size()
    probabilities(head, tokens)
    assert _softmax._cache_size() == max(before, 1) or count == 0


def test_an_image_without_cells(model, head) -> None:
    cells = cj.segment(np.full((64, 64, 3), 240, np.uint8), model, mpp=0.25, head=head)
    assert len(cells) == 0
    assert [name for name, _ in cells.classes.values()] == list(NAMES)


class Broken(FreeNetwork):
    """Tokens that are no numbers in the upper half of a tile."""

    def __call__(self, tiles):
        for maps in super().__call__(tiles):
            maps["tokens"][: len(maps["tokens"]) // 2] = np.nan
            yield maps


@pytest.fixture
def broken(tmp_path):
    save_head(tmp_path / "head", token_dim=3)
    return Broken(with_tokens=True, head=cj.load(tmp_path / "head"), tokens=False)


def test_a_token_that_is_no_numbers_gives_no_type_and_it_is_said(
    broken, tmp_path, monkeypatch
) -> None:
    monkeypatch.setitem(cj.segment.__globals__, "predictor_of", lambda *_, **__: broken)
    with pytest.warns(UserWarning, match=r"tokens of them are no numbers: \d+"):
        cells = cj.segment(tissue(128, 128), None, mpp=0.25)
    without = cells.column("type") == 0
    assert 0 < without.sum() < len(cells)
    vectors = np.array(cells.table["probabilities"].to_pylist())
    assert (vectors[without] == 0).all()
    np.testing.assert_allclose(vectors[~without].sum(1), 1, atol=1e-6)
    assert (cells.column("type_prob")[without] == 0).all()
    for form in ("parquet", "geojson", "json", "csv"):
        cj.exports.write(cells, tmp_path / f"cells.{form}")
    assert (cj.read_cells(tmp_path / "cells.parquet").column("type") == 0).sum() == without.sum()


def test_a_report_counts_cells_without_a_type(broken, tmp_path) -> None:
    write_slide(tmp_path / "a.tif", tissue(128, 128))
    task = Task(tmp_path / "out", "free", Options(export=("parquet", "overlay"), tissue="none"))
    task.predictor = broken
    source = Listed(tmp_path / "a.tif")
    report = task.segment(source, task.open(source)).report
    assert report.cells["class 0"] > 0
    assert report.warnings == [remark(report.cells["class 0"])]


def test_heads_that_do_not_fit(model, tmp_path, pixels) -> None:
    save_head(tmp_path / "head", token_dim=1280)
    head = cj.load(tmp_path / "head")
    with pytest.raises(InputError, match="tokens of 1280 numbers, those of cellvit_tiny have 128"):
        cj.segment(pixels, model, mpp=0.25, head=head)
    with pytest.raises(InputError, match="no cell classifier head"):
        cj.segment(pixels, model, mpp=0.25, head=model)
    head.card = None
    with pytest.raises(InputError, match="no card"):
        predictor_of(model, head=head)


def test_a_head_of_a_wide_encoder_sees_its_tokens(tmp_path) -> None:
    """Virchow's patches are no whole pixels wide: its tokens still cover the tile evenly."""
    model = inference(make(small_config(encoder="dinov2", patch_size=14, any_size=True)))
    model.card = dataclasses.replace(CARD, tile=64)
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    (maps,) = Predictor(model, model.card, tokens=True)([pixels])
    tokens = tokens_of(Tile(0, 0, 64, ((0, 0), (64, 64))), maps["tokens"])
    assert tokens.sides == (16, 16)
    np.testing.assert_array_equal(tokens.grid, maps["tokens"])
    odd = tokens_of(Tile(0, 0, 64, ((0, 0), (64, 64))), maps["tokens"][:3, :3])
    assert odd.sides == (Fraction(64, 3), Fraction(64, 3))
    np.testing.assert_array_equal(odd.grid, maps["tokens"][:3, :3])


# ----- nuclei only -----------------------------------------------------------------------------


def test_binary_gives_one_class_and_drops_nothing(model, pixels) -> None:
    typed = cj.segment(pixels, model, mpp=0.25)
    cells = cj.segment(pixels, model, mpp=0.25, binary=True)
    assert {tuple(b) for b in boxes_of(typed)} <= {tuple(b) for b in boxes_of(cells)}
    assert set(cells.column("type")) == {1}
    np.testing.assert_allclose(cells.column("type_prob"), 1)
    assert [name for name, _ in cells.classes.values()] == ["Nucleus"]
    assert "probabilities" not in cells.table.schema.names


def test_binary_keeps_what_the_network_calls_background() -> None:
    model = inference(make(small_config()))
    model.card = CARD
    model.heads.nuclei_binary_map.bias[...] = np.array([-99.0, 99.0])
    model.heads.nuclei_type_map.bias[...] = np.array([99.0, 0.0, 0.0])
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    slide = ImageSlide("x", pixels, 0.25)
    typed, binary = (
        segment_image(slide, predictor_of(model, binary=binary)) for binary in (False, True)
    )
    assert len(typed.cells) == 0
    assert len(binary.cells) > 0
    assert (binary.instances > 0).any()


def test_a_head_and_binary_exclude_each_other(model, head, pixels) -> None:
    with pytest.raises(InputError, match="choose one"):
        cj.segment(pixels, model, mpp=0.25, head=head, binary=True)


@pytest.mark.parametrize("form", ["parquet", "geojson", "json"])
@pytest.mark.parametrize("kind", ["head", "binary"])
def test_results_are_written(model, head, pixels, tmp_path, form: str, kind: str) -> None:
    options = {"head": head} if kind == "head" else {"binary": True}
    cells = cj.segment(pixels, model, mpp=0.25, **options)
    cj.exports.write(cells, tmp_path / f"cells.{form}")
    name = NAMES[cells.column("type")[0] - 1] if kind == "head" else "Nucleus"
    assert name.encode() in (tmp_path / f"cells.{form}").read_bytes()
