import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.io

from cellvit_jax.data import Sample, open_dataset, open_splits
from cellvit_jax.data.files import read_labels
from cellvit_jax.data.layouts import pannuke as pannuke_layout
from cellvit_jax.data.open import find_layout
from cellvit_jax.errors import InputError, UnsafeFileError
from cellvit_jax.metrics import panoptic_quality
from tests.shared import shared
from tests.training_data.makers import (
    MAKERS,
    aperio,
    consep,
    field,
    made,
    outlines,
    plain,
    png,
    type_of,
)
from tests.training_data.same import assert_same_nuclei

SPLITS = {
    "monuseg": ["all"],
    "monusac": ["all"],
    "consep": ["test", "train"],
    "lizard": ["split1", "split3"],
    "pannuke": ["fold1", "fold2", "fold3"],
    "cellvit": ["fold0"],
    "plain": ["all"],
    "consep-png": ["train", "val"],
    "cellvit++": ["test", "train"],
    "qupath": ["all"],
}
# class ids of the made types 1 and 2
IDS = {"consep": [0, 2, 3], "consep-png": [0, 2, 3], "monuseg": None}


@pytest.fixture(params=MAKERS)
def kind(request):
    return request.param


def test_each_layout_is_recognised_and_split(kind, tmp_path):
    made(kind, tmp_path)
    assert find_layout(tmp_path) == kind
    assert list(open_splits(tmp_path)) == SPLITS[kind]


def test_each_layout_gives_back_what_it_was_made_of(kind, tmp_path):
    sample = made(kind, tmp_path)
    read = open_dataset(tmp_path, SPLITS[kind][0]).samples[0]
    np.testing.assert_array_equal(read.image, sample.image)
    expected = sample.instances
    if kind == "monusac":  # of which the last is ambiguous
        expected = np.where(expected == expected.max(), 0, expected)
    assert_same_nuclei(read.instances, expected)
    assert (read.image.dtype, read.instances.dtype) == (np.uint8, np.int32)
    if ids := IDS.get(kind, [0, 1, 2]):
        np.testing.assert_array_equal(read.types, np.take(ids, sample.types) * (expected > 0))
        assert read.types.dtype == np.uint8
    else:
        assert read.types is None


def test_fields_are_read_by_threads_and_pickle_without_pixels(kind, tmp_path):
    made(kind, tmp_path)
    samples = open_dataset(tmp_path, SPLITS[kind][-1]).samples
    again = pickle.loads(data := pickle.dumps(samples))
    assert len(data) < 2000
    with ThreadPoolExecutor(4) as pool:
        for read in pool.map(again.__getitem__, [0] * 8):
            np.testing.assert_array_equal(read.instances, samples[0].instances)


def test_a_slice_of_fields_is_read_lazily_too(tmp_path):
    made("pannuke", tmp_path)
    samples = open_dataset(tmp_path, "fold2").samples
    assert [s.name for s in samples[1:]] == [samples[1].name]
    with pytest.raises(IndexError):
        samples[2]


def test_facts_of_the_published_sets(tmp_path):
    facts = {}
    for kind in ("lizard", "pannuke", "monusac"):
        made(kind, tmp_path / kind)
        facts[kind] = open_dataset(tmp_path / kind, SPLITS[kind][0])
    assert (facts["lizard"].mpp, len(facts["lizard"].classes)) == (0.5, 6)
    assert facts["pannuke"].classes[0] == "Neoplastic"
    assert facts["pannuke"].tissues[facts["pannuke"].samples[1].tissue] == "Bile-duct"
    assert all(dataset.license and dataset.citation for dataset in facts.values())


def test_a_real_slide_of_monusac_is_read_with_its_outlines(tmp_path):
    pytest.importorskip("openslide")
    folder = shared("data/wsi")
    names = ("instances", "types")
    truth, kinds = (
        read_labels(folder / f"MoNuSAC-A9K0_1_{name}.png").astype(np.int32) for name in names
    )
    slide = Sample("slide", np.zeros((*truth.shape, 3), np.uint8), truth, kinds.astype(np.uint8))
    layers = {1: "Epithelial", 4: "Macrophage"}  # its types on the disk
    polygons = {name: [] for name in layers.values()}
    for i, polygon in outlines(slide).items():
        polygons[layers[type_of(slide, i)]].append(polygon)
    aperio(tmp_path / "P" / "A9K0_1.xml", polygons)
    (tmp_path / "P" / "A9K0_1.svs").symlink_to(folder / "MoNuSAC-A9K0_1.svs")
    (read,) = open_dataset(tmp_path).samples
    assert read.image.std() > 20
    assert panoptic_quality(truth, read.instances)["pq"] > 0.999
    np.testing.assert_array_equal(np.unique(read.types), [0, 1, 3])


def test_pannuke_numbers_nuclei_over_classes_and_the_later_class_wins():
    masks = np.zeros((4, 6, 6))
    masks[0, :3, 0], masks[2, :3, 0] = 7, 9
    masks[0, 2:5, 4] = 7
    instances, types = pannuke_layout.combined(masks)
    assert instances[0].tolist() == [1, 1, 3, 3, 3, 0]
    assert types[0].tolist() == [1, 1, 5, 5, 5, 0]
    assert instances[2].tolist() == [2, 2, 2, 0, 0, 0]


def test_masks_may_have_more_than_255_nuclei_and_any_shape(tmp_path):
    sample = field(408, 480)
    assert sample.instances.max() > 255
    plain(tmp_path, sample)
    np.testing.assert_array_equal(open_dataset(tmp_path).samples[0].instances, sample.instances)


def test_of_nuclei_that_overlap_the_smaller_is_whole(tmp_path):
    large = np.array([[2, 2], [30, 2], [30, 30], [2, 30]])
    small = np.array([[10, 10], [14, 10], [14, 14], [10, 14]])
    aperio(tmp_path / "a.xml", {"Description": [small, large]})
    png(tmp_path / "a.png", np.zeros((32, 40, 3), np.uint8))
    instances = open_dataset(tmp_path).samples[0].instances
    assert (instances == instances[12, 12]).sum() == 16
    assert (instances > 0).sum() == 28 * 28


def test_monuseg_has_its_test_part_in_one_folder(tmp_path):
    sample = made("monuseg", tmp_path / "Training")
    aperio(tmp_path / "Test" / "t.xml", {"Description": list(outlines(sample).values())})
    png(tmp_path / "Test" / "t.png", sample.image)
    splits = open_splits(tmp_path)
    assert {split: part.samples[0].name for split, part in splits.items()} == {
        "test": "t",
        "training": "TCGA-1",
    }


def broken_monusac(root):
    made("monusac", root)
    path = root / "TCGA-P" / "TCGA-P_1.xml"
    path.write_text(path.read_text().replace('"Ambiguous"', '"Stroma"'))


def broken_pannuke(root):
    made("pannuke", root)
    np.save(root / "Fold 1" / "masks" / "fold1" / "masks.npy", np.zeros((3, 96, 128, 6)))


def pannuke_of_five(root):
    made("pannuke", root)
    np.save(root / "Fold 1" / "masks" / "fold1" / "masks.npy", np.zeros((2, 96, 128, 5)))


def foreign_monuseg(root):
    made("monuseg", root)
    (root / "Annotations" / "TCGA-1.xml").write_text("<foo/>")


def foreign_monusac(root):
    made("monusac", root)
    path = root / "TCGA-P" / "TCGA-P_1.xml"
    path.write_text(path.read_text().replace("Annotations", "foo"))


def foreign_mats(kind):
    def make(root):
        made(kind, root)
        for path in root.rglob("*.mat"):
            scipy.io.savemat(path, {"inst_map": np.ones((96, 128)), "kinds": np.ones(3)})

    return make


def broken_cellvit(root):
    made("cellvit", root)
    np.save(root / "fold0" / "labels" / "0_0.npy", {"inst_map": np.zeros((96, 128), int)})


def image_without_label(root):
    made("cellvit", root)
    png(root / "fold0" / "images" / "0_1.png", field().image)


def outlines_without_image(root):
    made("monuseg", root)
    aperio(root / "Annotations" / "TCGA-2.xml", {})


def foreign_pannuke(root):
    made("pannuke", root)
    np.save(root / "Fold 2" / "images" / "fold2" / "types.npy", np.array(["Breast", "Brain"]))


def broken_lizard(root):
    made("lizard", root)
    next(root.rglob("consep_1.png")).unlink()


def broken_consep(root):
    consep(root, field())
    png(root / "Test" / "Images" / "test_1.png", np.zeros((8, 8, 3), np.uint8))


def unknown_tissue(root):
    made("cellvit", root)
    (root / "fold0" / "types.csv").write_text("img,type\n0_0.png,Brain\n")


def unnamed_types(root):
    plain(root, field())
    (root / "classes.yaml").unlink()


def unknown_type(root):
    plain(root, field())
    (root / "classes.yaml").write_text("classes: {1: tumour}")


def wrong_facts(root):
    plain(root, field())
    (root / "classes.yaml").write_text("{classes: {1: a, 2: b}, mpp: fine}")


def no_yaml(root):
    plain(root, field())
    (root / "classes.yaml").write_text("classes: {1: a")


def gaps(root):
    plain(root, field())
    (root / "classes.yaml").write_text("classes: {1: a, 3: b}")


def class_zero(root):
    plain(root, field())
    (root / "classes.yaml").write_text("classes: {0: tumour, 1: lymphocyte}")


def colour_mask(root):
    plain(root, field())
    png(root / "masks" / "made.png", field().image)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (broken_monusac, "Stroma.*Epithelial"),
        (broken_pannuke, r"\(3, 96, 128, 6\)"),
        (pannuke_of_five, r"\(2, 96, 128, 5\).*\(N, H, W, 6\)"),
        (foreign_monuseg, r"TCGA-1\.xml is no XML of Aperio.*root is foo, expected Annotations"),
        (foreign_monusac, r"TCGA-P_1\.xml is no XML of Aperio.*root is foo, expected Annotations"),
        (foreign_mats("consep"), "'consep': .*lacks type_map; it holds inst_map, kinds"),
        (foreign_mats("lizard"), "'lizard': .*lacks id, class; it holds inst_map, kinds"),
        (broken_cellvit, r"0_0\.npy has no type_map, it holds inst_map"),
        (image_without_label, r"0_1\.npy is missing, as are 0 more of 2"),
        (outlines_without_image, r"TCGA-2\.xml has no image of the same name in "),
        (foreign_pannuke, r"types\.npy has a tissue 'Brain' that PanNuke has not"),
        (broken_lizard, r"consep_1\.mat has no image"),
        (broken_consep, r"\(8, 8\)"),
        (unknown_tissue, "Brain"),
        (unnamed_types, r"classes: \{1: tumour, 2: lymphocyte\}"),
        (unknown_type, "has the type 2"),
        (colour_mask, "no label image"),
        (wrong_facts, "mpp 'fine'"),
        (no_yaml, "cannot be read as YAML"),
        (gaps, r"ids \[1, 3\], expected such without gaps: 0, 1, … or 1, 2, …"),
        (class_zero, r"classes\.yaml calls 0 'tumour', but 0 is the background of masks"),
    ],
)
def test_what_does_not_fit_is_one_sentence(make, message, tmp_path):
    make(tmp_path)
    with pytest.raises(InputError, match=message):
        [sample for part in open_splits(tmp_path).values() for sample in part.samples]


def test_labels_that_would_run_code_are_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return print, ("boom",)

    made("cellvit", tmp_path)
    np.save(tmp_path / "fold0" / "labels" / "0_0.npy", {"inst_map": Bomb()})
    with pytest.raises(UnsafeFileError, match="print"):
        open_dataset(tmp_path).samples[0]
