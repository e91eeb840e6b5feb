import dataclasses
import re

import numpy as np
import pytest

from cellvit_jax.card import PANNUKE_TISSUES
from cellvit_jax.data import Dataset, open_dataset, open_splits, write
from cellvit_jax.data.open import LAYOUTS, find_layout, is_annotated
from cellvit_jax.errors import InputError
from tests.shared import shared
from tests.training_data.fields import COLORS
from tests.training_data.makers import aperio, field, made, outlines, plain, png


@pytest.mark.parametrize(
    ("name", "layout", "classes", "counts"),
    [
        ("consep", "consep-png", 4, (15, 3)),
        ("monuseg", "plain", 0, (10, 3)),
        ("bbbc038", "plain", 0, (12, 3)),
    ],
)
def test_real_sets_open_by_their_path_alone(name, layout, classes, counts):
    path = shared(f"data/he-nuclei/{name}")
    train, val = (open_dataset(path, split) for split in ("train", "val"))
    assert (len(train.samples), len(val.samples)) == counts
    assert (find_layout(path), len(train.classes)) == (layout, classes)
    sample = val.samples[0]
    assert (sample.types is not None) == bool(classes)
    assert len(np.unique(sample.instances)) == sample.instances.max() + 1


def test_a_split_may_be_left_out_where_there_is_one(tmp_path):
    made("plain", tmp_path)
    assert open_dataset(tmp_path).samples[0].name == "made"


def test_several_splits_are_named_where_none_is_given(tmp_path):
    made("pannuke", tmp_path)
    with pytest.raises(InputError, match="several splits: give one of fold1, fold2, fold3"):
        open_dataset(tmp_path)
    with pytest.raises(InputError, match="no split 'val'"):
        open_dataset(tmp_path, "val")
    assert open_dataset(tmp_path, "FOLD2").classes


def test_a_split_of_a_plain_set_has_the_names_of_the_folder_above(tmp_path):
    for split in ("train", "val"):
        plain(tmp_path / split, field())
        (tmp_path / split / "classes.yaml").rename(tmp_path / "classes.yaml")
    assert open_dataset(tmp_path, "val").classes == ("tumour", "other")
    assert open_dataset(tmp_path / "val").classes == ("tumour", "other")


def test_a_layout_may_be_said(tmp_path):
    made("plain", tmp_path)
    (tmp_path / "made.geojson").write_text("{}")
    assert len(open_splits(tmp_path, "plain")) == 1
    with pytest.raises(InputError, match=re.escape(", ".join(LAYOUTS))):
        open_splits(tmp_path, "plane")


def test_a_layout_may_be_said_to_the_trainer(tmp_path):
    pytest.importorskip("grain")
    from cellvit_jax.training.config import RECIPES, RunConfig, Source
    from cellvit_jax.training.fields import open_fields

    sample = field()
    for split in ("train", "val"):
        aperio(tmp_path / split / f"{split}_1.xml", {"Lymphocyte": list(outlines(sample).values())})
        png(tmp_path / split / f"{split}_1.png", sample.image)
    assert find_layout(tmp_path) == "monusac"
    sources = (Source(path=str(tmp_path)),)
    config = RunConfig(data=sources, model="cellvit-tiny", recipe=RECIPES["demo"]())
    fields = open_fields(config.changed(["data.0.layout=monuseg"]))
    assert (fields.learnt.name, fields.learnt.samples[0].types) == ("MoNuSeg", None)
    assert [sample.name for sample in fields.measured.samples] == ["val_1"]


def test_images_beside_other_xml_are_not_annotated(tmp_path):
    made("monuseg", tmp_path)
    assert is_annotated(tmp_path)
    (tmp_path / "Annotations" / "TCGA-1.xml").write_text("<foo/>")
    assert not is_annotated(tmp_path)


@pytest.mark.parametrize("lost", ["masks", "images"])
def test_what_is_missing_of_the_closest_layout_is_named(lost, tmp_path):
    plain(tmp_path, field(typed=False))
    (tmp_path / lost / "made.png").unlink()
    kept = ({"masks", "images"} - {lost}).pop()
    message = rf"(?s)images/, masks/.*'plain'.*has {kept}/\*\.\*, but no {lost}/\*\.\*"
    with pytest.raises(InputError, match=message):
        open_dataset(tmp_path)


def test_an_image_without_a_mask_is_named(tmp_path):
    plain(tmp_path, field(typed=False))
    png(tmp_path / "images" / "other.png", field().image)
    with pytest.raises(InputError, match=r"masks/other\.png is missing"):
        open_dataset(tmp_path)


def test_what_is_no_folder_or_empty_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, message in (("empty", "nothing"), ("file", "a file"), ("absent", "not there")):
        with pytest.raises(InputError, match=message):
            open_dataset(tmp_path / name)


def test_an_opened_set_feeds_the_pipeline(tmp_path):
    pytest.importorskip("grain")
    from cellvit_jax.data.pipeline import RandomTile, batches
    from cellvit_jax.data.sampling import Sampling

    made("pannuke", tmp_path)
    dataset = open_dataset(tmp_path, "fold1")
    weights = Sampling.published().weights(dataset)
    stream = batches(RandomTile(dataset.samples, weights, tile=32), 4, seed=0)
    batch = next(stream)
    stream.close()
    tissues = {dataset.tissues.index(name) for name in ("Breast", "Bile-duct")}
    assert set(batch["tissue"].tolist()) <= tissues
    assert batch["typed"].all()


@pytest.fixture(scope="module", params=["plain", "cellvit"])
def corpus(request, tmp_path_factory):
    """The path of a field of 512×512 and one of 256×256, in two tissues, as the layout has them."""
    fields = [
        dataclasses.replace(field(side, side), name=f"f{side}", tissue=i)
        for i, side in enumerate((512, 256))
    ]
    path = tmp_path_factory.mktemp("corpus") / request.param
    made_of = Dataset("corpus", fields, ("a", "b"), PANNUKE_TISSUES)
    {"plain": write.write_plain, "cellvit": write.write_cellvit}[request.param](
        {"all": made_of}, path
    )
    return path


@pytest.mark.parametrize("tile", [256, 512])
def test_tiles_of_256_and_512_are_drawn_from_fields_of_both_sizes(corpus, tile):
    pytest.importorskip("grain")
    from cellvit_jax.data.augment import Augmentation
    from cellvit_jax.data.pipeline import RandomTile, batches
    from cellvit_jax.data.sampling import Sampling

    dataset = open_dataset(corpus)
    assert find_layout(corpus) == corpus.name
    small, large = dataset.samples
    weights = Sampling.published().weights(dataset)
    tiles = RandomTile(dataset.samples, weights, tile, Augmentation.none())
    stream = batches(tiles, 6, seed=0)
    batch = next(stream)
    stream.close()
    assert {batch[name].shape[:3] for name in ("image", "hv", "types")} == {(6, tile, tile)}
    assert set(batch["tissue"].tolist()) == {small.tissue, large.tissue}
    np.testing.assert_array_equal(COLORS[batch["types"]], batch["image"])
    drawn = [small if tissue == small.tissue else large for tissue in batch["tissue"]]
    for image, whole in zip(batch["image"], drawn, strict=True):
        side = len(whole.image)  # beyond a field smaller than the tile lies its mirror image
        if side <= tile:
            np.testing.assert_array_equal(image[:side, :side], whole.image)
