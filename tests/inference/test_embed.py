"""Vectors of cells and of patches, and where they lie."""

import dataclasses
import gc
import weakref

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import cellvit_jax as cj
from cellvit_jax.cells import joined
from cellvit_jax.errors import InputError
from cellvit_jax.exports import embeddings
from cellvit_jax.inference.embed import EmbedOptions, pooled
from cellvit_jax.inference.journal import Journal
from cellvit_jax.inference.patches import PATCHES, PatchPredictor
from cellvit_jax.inference.pipeline import rows
from cellvit_jax.inference.report import Report
from cellvit_jax.slides import ImageSlide, Resampled
from tests.inference.free import write_slide
from tests.networks import SAM_CARD, save_encoder, save_small, small_sam
from tests.training_data.makers import made

OPTIONS = EmbedOptions(level="patches", pool="cls")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (192, 128, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("encoder") / "encoder")


@pytest.fixture
def image(tmp_path, pixels):
    path = tmp_path / "tissue.png"
    Image.fromarray(pixels).save(path)
    return path


def stained(height: int, width: int) -> np.ndarray:
    """The upper left of the bundled image."""
    pixels = cj.slides.open_image(cj.zoo.ASSETS / "he-consep.png").pixels
    return np.ascontiguousarray(pixels[:height, :width])


def read(path):
    table = pq.read_table(path)
    return table, np.array(table["embedding"].to_pylist(), np.float32)


def by_hand(model, pixels, name, pool=lambda x: x):
    """Vectors of the 3 × 2 patches of 64 pixels."""
    parts = pixels.reshape(3, 64, 2, 64, 3).swapaxes(1, 2).reshape(6, 64, 64, 3)
    normal = (parts / 255 - np.array(model.card.mean)) / np.array(model.card.std)
    return pool(np.asarray(model(np.float32(normal))[name]))


@pytest.mark.parametrize(("pool", "name"), [("cls", "cls"), ("mean", "tokens")])
def test_patches_are_what_the_encoder_makes_of_them(call, image, folder, pixels, pool, name):
    out = image.parent / "out"
    arguments = ("embed", image, "--mpp", "0.25", "--out", out, "--model", folder, "--level")
    code, said, errors = call(*arguments, "patches", "--pool", pool)
    assert code == 0, errors
    assert "6 patches" in said
    table, vectors = read(out / "tissue" / "embeddings.parquet")
    mean = (lambda x: x.mean((1, 2))) if pool == "mean" else (lambda x: x)
    expected = by_hand(cj.load(folder), pixels, name, mean)
    np.testing.assert_allclose(vectors, expected, atol=2e-3)
    assert table.schema.field("embedding").type.value_type == pa.float16()
    assert table["x"].to_pylist() == [31.5, 95.5] * 3
    assert table["y"].to_pylist() == [31.5] * 2 + [95.5] * 2 + [159.5] * 2
    assert "done before" in call(*arguments, "patches", "--pool", pool)[1]


def test_patches_of_a_slide_lie_in_its_tissue_and_in_its_own_pixels(call, folder, tmp_path):
    """At half the network's resolution, with tissue on the left and a rectangle to look into."""
    slide = write_slide(tmp_path / "slide.tif", stained(128, 192), mpp=0.5)
    mask = np.zeros((128, 192), np.uint8)
    mask[:, :60] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    where = ("--tissue", tmp_path / "mask.png", "--roi", "0,32,192,96")
    how = ("--model", folder, "--level", "patches", "--tile", "64", *where)
    code, _, errors = call("embed", slide, *how, "--out", tmp_path / "out")
    assert code == 0, errors
    table, vectors = read(tmp_path / "out" / "slide" / "embeddings.parquet")
    assert table["id"].to_pylist() == [1, 2, 3, 4, 5, 6]
    assert table["x"].to_pylist() == [15.5, 47.5] * 3
    assert table["y"].to_pylist() == [47.5] * 2 + [79.5] * 2 + [111.5] * 2
    assert set(table["side"].to_pylist()) == {32}
    view = Resampled(cj.slides.open_slide(slide), 2)
    (maps,) = PatchPredictor(cj.load(folder), tile=64)([view.read(128, 64, 64, 64)])
    np.testing.assert_allclose(vectors[3], maps["vector"], atol=2e-3)


def test_a_run_that_goes_on_gives_the_same(folder, pixels):
    predictor = PatchPredictor(cj.load(folder), batch_size=2)
    plan = OPTIONS.plan(ImageSlide("x", pixels, 0.25), predictor.card)
    whole = list(rows(plan, predictor, Report("x"), stages=PATCHES))
    rest = list(rows(plan, predictor, Report("x"), after=whole[0], stages=PATCHES))
    assert joined(r.table for r in rest).equals(joined(r.table for r in whole[1:]))
    assert joined(r.table for r in whole)["id"].to_pylist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("pool", "name"), [("cls", "neck"), ("mean", "tokens")])
def test_sam_gives_the_mean_of_its_neck_or_of_its_tokens(pixels, pool, name):
    model = small_sam()
    (maps,) = PatchPredictor(model, pool)([pixels[:64, :64]])
    normal = (pixels[None, :64, :64] / 255 - np.array(SAM_CARD.mean)) / np.array(SAM_CARD.std)
    grid = model.image_encoder.features(np.float32(normal))[name]
    np.testing.assert_allclose(maps["vector"], grid[0].mean((0, 1)), rtol=1e-4, atol=1e-5)


VIRCHOW = {"encoder": "dinov2", "patch_size": 14, "any_size": True, "gate": "silu"}
SAM = {"encoder": "sam", "window_size": 3, "global_layers": (2, 4)}
ENCODERS = {
    "uni": ({"encoder": "dinov2"}, "cls"),
    "virchow": (VIRCHOW, "cls"),
    "virchow2": (VIRCHOW | {"num_registers": 4}, "cls"),
    "sam": (SAM, "neck"),
    "sam-med2d": (SAM | {"adapters": True}, "neck"),
}


@pytest.mark.parametrize("name", [*ENCODERS, "cellvit"])
def test_any_encoder_alone_will_do_and_that_of_a_cellvit(name, call, image, pixels):
    fields, output = ENCODERS.get(name, ({}, "cls"))
    place, out = image.parent / "encoder", image.parent / "out"
    save_small(place) if name == "cellvit" else save_encoder(place, **fields)
    Image.fromarray(pixels[:64]).save(image)
    how = ("--model", place, "--level", "patches", "--tile", "64", "--mpp", "0.25")
    code, _, errors = call("embed", image, *how, "--out", out)
    assert code == 0, errors
    model = cj.load(place)
    encoder = model.encoder.features if name == "cellvit" else model
    parts = np.stack([pixels[:64, :64], pixels[:64, 64:]])
    normal = (parts / 255 - np.array(model.card.mean)) / np.array(model.card.std)
    expected = np.asarray(encoder(np.float32(normal))[output])
    expected = expected.mean((1, 2)) if output == "neck" else expected
    found = [maps["vector"] for maps in PatchPredictor(model, tile=64, batch_size=2)(parts)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    _, vectors = read(out / "tissue" / "embeddings.parquet")
    np.testing.assert_allclose(vectors, expected, rtol=2e-3, atol=2e-3)  # float16


@pytest.mark.parametrize("pool", ["cls", "box", "mask"])
def test_a_command_that_was_stopped_goes_on(call, image, folder, monkeypatch, pool):
    given = ("embed", image, "--mpp", "0.25", "--pool", pool)
    if pool == "cls":
        given += ("--model", folder, "--level", "patches", "--out")
    else:  # three rows of tiles of the bundled network, with cells across them
        Image.fromarray(stained(320, 128)).save(image)
        given += ("--tile", "128", "--out")
    assert call(*given, image.parent / "whole")[0] == 0
    add = Journal.add

    def stopped(journal, row, lost):
        add(journal, row, lost)
        if row.number == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "add", stopped)
    assert call(*given, image.parent / "out")[0] == 130
    seen = []
    monkeypatch.setattr(Journal, "add", lambda *a: (seen.append(a[1].number), add(*a)))
    assert call(*given, image.parent / "out")[0] == 0
    assert seen == [2]
    one, other = (read(image.parent / n / "tissue/embeddings.parquet") for n in ("whole", "out"))
    assert one[0].num_rows > 5
    assert one[0].equals(other[0])


@pytest.mark.parametrize("ending", ["parquet", "h5ad", "zarr"])
def test_vectors_are_written_as_they_come(ending, tmp_path):
    if ending != "parquet":
        pytest.importorskip("anndata")
    alive = []

    def parts():
        for number in range(9):
            gc.collect()
            assert sum(one() is not None for one in alive) < 3  # of all that were handed over
            rows = np.full((4, 3), number, np.float16)
            flat = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), 3)
            column = pa.chunked_array([flat])
            alive.append(weakref.ref(column))
            ids = np.arange(4) + 4 * number
            yield pa.table({"id": ids, "x": ids / 2, "y": ids / 3, "embedding": column})
            del flat, column, rows

    embeddings.write(parts(), tmp_path / f"vectors.{ending}", mpp=0.5)
    assert len(alive) == 9
    if ending == "parquet":
        table, vectors = read(tmp_path / "vectors.parquet")
        places = np.stack([table["x"], table["y"]], 1)
    else:
        anndata = pytest.importorskip("anndata")
        written = getattr(anndata, f"read_{ending}")(tmp_path / f"vectors.{ending}")
        vectors, places = written.X, written.obsm["spatial"]
        assert vectors.dtype == np.float16
    np.testing.assert_array_equal(vectors[:, 0], np.repeat(np.arange(9), 4))
    np.testing.assert_array_equal(places, np.arange(36)[:, None] / (2, 3))


def test_what_float16_cannot_hold_becomes_its_end_and_nan_stays():
    values = [[1.5, 1e6], [-1e9, 0.1], [np.nan, np.inf]]
    table = pa.table({"token": pa.array(values, pa.list_(pa.float32(), 2))})
    found = np.array(embeddings.halves(table).to_pylist())
    np.testing.assert_array_equal(found, np.float16([[1.5, 65504], [-65504, 0.1], [np.nan, 65504]]))


def test_cells_have_the_tokens_that_segment_keeps(call, tmp_path):
    Image.fromarray(stained(200, 200)).save(tmp_path / "he.png")
    common = (tmp_path / "he.png", "--mpp", "0.25", "--quiet", "--out")
    assert call("segment", *common, tmp_path / "s", "--tokens", "--export", "parquet")[0] == 0
    assert call("embed", *common, tmp_path / "box", "--to", "parquet", "h5ad", "zarr")[0] == 0
    assert call("embed", *common, tmp_path / "mask", "--pool", "mask")[0] == 0
    cells = cj.read_cells(tmp_path / "s" / "he")
    table, vectors = read(tmp_path / "box" / "he" / "embeddings.parquet")
    _, masked = read(tmp_path / "mask" / "he" / "embeddings.parquet")
    tokens = np.array(cells.table["token"].to_pylist(), np.float16)
    np.testing.assert_array_equal(vectors, tokens)
    np.testing.assert_allclose(table["x"], cells.column("centroid_x"))
    assert masked.shape == vectors.shape
    assert (masked != vectors).any()
    anndata = pytest.importorskip("anndata")
    assert table.schema.field("embedding").type.value_type == pa.float16()
    places = np.stack([table["x"], table["y"]], 1)
    for ending, reader in (("h5ad", anndata.read_h5ad), ("zarr", anndata.read_zarr)):
        again = reader(tmp_path / "box" / "he" / f"embeddings.{ending}")
        np.testing.assert_array_equal(again.X, tokens, strict=True)  # float16
        np.testing.assert_array_equal(again.obsm["spatial"], places)
        assert again.obs["type_name"].tolist() == table["type_name"].to_pylist()


def test_what_cannot_be(folder):
    with pytest.raises(InputError, match="box or mask"):
        pooled("cells", "cls")
    with pytest.raises(InputError, match="multiples of the patch size"):
        PatchPredictor(cj.load(folder), tile=50)
    model = cj.load(folder)
    model.config = dataclasses.replace(model.config)
    model.card = None
    with pytest.raises(InputError, match="no card"):
        PatchPredictor(model)


@pytest.fixture
def pannuke(tmp_path):
    """Folds of two tiles, in the arrays that PanNuke comes in."""
    made("pannuke", tmp_path / "pannuke", height=64, width=64)
    return tmp_path / "pannuke"


def test_tiles_of_annotated_data_are_embedded_as_their_images_are(call, pannuke, folder, tmp_path):
    how = ("--model", folder, "--tile", "64", "--level", "patches")
    arguments = ("embed", pannuke, "--split", "fold1", *how, "--out", tmp_path / "out")
    code, said, errors = call(*arguments)
    assert code == 0, errors
    assert "2 slides: 2 done" in said
    assert said.count("1 patches, 0.00 mm²") == 2  # in the table of all
    assert "2 slides: 2 done before" in call(*arguments)[1]
    assert call("data", "prepare", pannuke, tmp_path / "tiles", "--to", "plain")[0] == 0
    images = tmp_path / "tiles" / "fold1" / "images"
    code, _, errors = call("embed", images, "--mpp", "0.25", *how, "--out", tmp_path / "again")
    assert code == 0, errors
    files = sorted((tmp_path / "out").glob("*/embeddings.parquet"))
    assert [read(path)[0].num_rows for path in files] == [1, 1]
    for path in files:
        other = tmp_path / "again" / path.relative_to(tmp_path / "out")
        np.testing.assert_array_equal(read(path)[1], read(other)[1])


def test_tiles_that_changed_are_not_taken_for_what_was_embedded(call, pannuke, folder, tmp_path):
    how = ("--model", folder, "--tile", "64", "--level", "patches", "--out", tmp_path / "out")
    assert call("embed", pannuke, "--split", "fold2", *how)[0] == 0
    array = pannuke / "Fold 2" / "images" / "fold2" / "images.npy"
    pixels = np.load(array)
    pixels[1, 0, 0] = 255 - pixels[1, 0, 0]
    np.save(array, pixels)
    code, said, errors = call("embed", pannuke, "--split", "fold2", *how)
    assert (code, "1 done before, 1 failed" in said, "pixels" in errors) == (3, True, True)


def test_which_part_of_annotated_data_is_to_be_said(call, pannuke, folder, tmp_path):
    how = ("--model", folder, "--level", "patches", "--out", tmp_path / "out")
    for split, sentence in ((), "has several splits"), (("--split", "val"), "has no split 'val'"):
        code, _, errors = call("embed", pannuke, *split, *how)
        assert (code, sentence in errors, "fold1, fold2, fold3" in errors) == (2, True, True)
    code, said, errors = call("embed", pannuke, "--split", "fold1", "--mpp", "-1", *how)
    assert (code, "2 failed" in said) == (3, True)
    assert errors.count("the resolution must be a positive number of µm per pixel, not -1") == 2
    (tmp_path / "empty").mkdir()
    code, _, errors = call("embed", tmp_path / "empty", *how)
    assert (code, "holds no slide" in errors) == (2, True)


def test_an_image_without_cells_gives_no_rows_in_any_format(call, image):
    Image.fromarray(np.full((128, 128, 3), 240, np.uint8)).save(image)
    given = (image, "--mpp", "0.25", "--out", image.parent, "--to", "parquet", "h5ad", "zarr")
    code, _, errors = call("embed", *given)
    assert (code, "no cells" in errors) == (0, True)
    table = pq.read_table(image.parent / "tissue" / "embeddings.parquet")
    assert (table.num_rows, table.schema.field("embedding").type.list_size) == (0, 128)
    anndata = pytest.importorskip("anndata")
    for ending, reader in (("h5ad", anndata.read_h5ad), ("zarr", anndata.read_zarr)):
        found = reader(image.parent / "tissue" / f"embeddings.{ending}")
        assert found.shape == (0, 128)
        assert found.obsm["spatial"].shape == (0, 2)


def test_nothing_to_embed(call, image, folder):
    out = image.parent / "out"
    mask = image.parent / "mask.png"
    Image.fromarray(np.zeros((12, 8), np.uint8)).save(mask)
    given = (image, "--mpp", "0.25", "--out", out, "--model", folder, "--tissue", mask)
    code, _, errors = call("embed", *given, "--level", "patches")
    assert (code, "no tissue" in errors) == (0, True)
    assert read(out / "tissue" / "embeddings.parquet")[0].num_rows == 0
