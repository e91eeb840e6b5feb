"""Small sets in the formats that they have on the disk, made from the field of `fields.py`."""

import csv
import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import scipy.io
import tifffile
import yaml
from PIL import Image

from cellvit_jax.card import PANNUKE_TISSUES
from cellvit_jax.data import Sample
from tests.training_data import fields


def field(*args, **kwargs) -> Sample:
    """The made field, of no tissue."""
    return dataclasses.replace(fields.field(*args, **kwargs), tissue=None)


VERTEX = '<Vertex X="{:.6f}" Y="{:.6f}" Z="0.000000"/>'
REGION = (
    '<Region Id="{}" Type="0" Zoom="5" Selected="0" NegativeROA="0"><Attributes/>'
    "<Vertices>{}</Vertices></Region>"
)
ANNOTATION = (
    '<Annotation Id="{}" Name="" ReadOnly="0" LineColor="65280" Visible="1">'
    '<Attributes><Attribute Name="{}" Id="0" Value=""/></Attributes><Regions>'
    '<RegionAttributeHeaders><AttributeHeader Id="9999" Name="Region" ColumnWidth="-1"/>'
    "</RegionAttributeHeaders>{}</Regions><Plots/></Annotation>"
)


def outlines(sample: Sample) -> dict[int, np.ndarray]:
    """Corner-based outlines (P,2) through the middles of pixels, by id."""
    found = {}
    for i in np.unique(sample.instances)[1:]:
        mask = (sample.instances == i).astype(np.uint8)
        (contour, *_), _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        found[int(i)] = contour[:, 0] + 0.5
    return found


def type_of(sample: Sample, i: int) -> int:
    return int(sample.types[sample.instances == i][0])


def png(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def aperio(path: Path, layers: dict[str, list[np.ndarray]]) -> None:
    """An XML of ImageScope with polygons in named layers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = ""
    for number, (name, polygons) in enumerate(layers.items(), 1):
        regions = [
            REGION.format(i, "".join(VERTEX.format(*xy) for xy in polygon))
            for i, polygon in enumerate(polygons, 1)
        ]
        text += ANNOTATION.format(number, name, "".join(regions))
    path.write_text(f'<Annotations MicronsPerPixel="0.252700">{text}</Annotations>')


def monuseg(root: Path, sample: Sample) -> None:
    for folder in ("Tissue Images", "Annotations"):
        (root / folder).mkdir(parents=True)
    tifffile.imwrite(root / "Tissue Images" / "TCGA-1.tif", sample.image, photometric="rgb")
    polygons = [*outlines(sample).values(), np.array([[1, 1], [2, 2]])]  # the last is no polygon
    aperio(root / "Annotations" / "TCGA-1.xml", {"Description": polygons})


def monusac(root: Path, sample: Sample) -> None:
    """Types 1 and 2, and the last nucleus marked as ambiguous."""
    polygons = outlines(sample)
    last = polygons.pop(max(polygons))
    layers = {
        name: [p for i, p in polygons.items() if type_of(sample, i) == kind]
        for kind, name in enumerate(("Epithelial", "Lymphocyte"), 1)
    }
    aperio(root / "TCGA-P" / "TCGA-P_1.xml", layers | {"Ambiguous": [last]})
    tifffile.imwrite(root / "TCGA-P" / "TCGA-P_1.tif", sample.image, photometric="rgb")


def consep(root: Path, sample: Sample) -> None:
    """The types of the sample as 3 and 7 of the seven."""
    for split in ("Train", "Test"):
        png(root / split / "Images" / f"{split.lower()}_1.png", sample.image)
        png(root / split / "Overlay" / f"{split.lower()}_1.png", sample.image)
        (root / split / "Labels").mkdir()
        maps = {
            "inst_map": sample.instances.astype(float),
            "type_map": np.array([0.0, 3.0, 7.0])[sample.types],
            "inst_type": np.ones((3, 1)),
            "inst_centroid": np.ones((3, 2)),
        }
        scipy.io.savemat(root / split / "Labels" / f"{split.lower()}_1.mat", maps)


def lizard(root: Path, sample: Sample) -> None:
    """Two images in splits 1 and 3, in the tree that the archives unpack to."""
    ids = np.unique(sample.instances)[1:]
    order = np.random.default_rng(0).permutation(ids)  # not sorted, as nothing says they are
    labels = {
        "inst_map": sample.instances,
        "id": order[:, None],
        "class": np.array([[type_of(sample, i)] for i in order], np.uint8),
        "bbox": np.zeros((len(ids), 4)),
        "centroid": np.zeros((len(ids), 2)),
    }
    folder = root / "lizard_labels" / "Lizard_Labels"
    (folder / "Labels").mkdir(parents=True)
    for number, name in ((1, "consep_1"), (2, "dpath_1")):
        png(
            root / f"lizard_images{number}" / f"Lizard_Images{number}" / f"{name}.png", sample.image
        )
        scipy.io.savemat(folder / "Labels" / f"{name}.mat", labels)
    rows = [["Filename", "Source", "Split"], ["consep_1", "consep", "1"], ["dpath_1", "dpath", "3"]]
    with (folder / "info.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def pannuke_masks(sample: Sample) -> np.ndarray:
    """(H,W,6) float64: a label image of each class, and where nothing is."""
    masks = np.zeros((*sample.instances.shape, 6))
    for kind in (1, 2):
        masks[..., kind - 1] = np.where(sample.types == kind, sample.instances, 0)
    masks[..., 5] = sample.instances == 0
    return masks


def pannuke(root: Path, sample: Sample) -> None:
    """Three folds of two fields, in the tree that the archives unpack to."""
    for fold in (1, 2, 3):
        images, masks = (
            root / f"Fold {fold}" / kind / f"fold{fold}" for kind in ("images", "masks")
        )
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        np.save(images / "images.npy", np.stack([sample.image, sample.image[::-1]]).astype(float))
        np.save(images / "types.npy", np.array(["Breast", "Bile-duct"]))
        np.save(masks / "masks.npy", np.stack([pannuke_masks(sample)] * 2))


def cellvit(root: Path, sample: Sample) -> None:
    fold = root / "fold0"
    png(fold / "images" / "0_0.png", sample.image)
    (fold / "labels").mkdir()
    maps = {"inst_map": sample.instances, "type_map": sample.types.astype(np.int32)}
    np.save(fold / "labels" / "0_0.npy", maps)
    (fold / "types.csv").write_text("img,type\n0_0.png,Breast\n")
    config = {
        "tissue_types": {name: i for i, name in enumerate(PANNUKE_TISSUES)},
        "nuclei_types": {"Background": 0, "Neoplastic": 1, "Inflammatory": 2},
    }
    (root / "dataset_config.yaml").write_text(yaml.safe_dump(config))


def plain(root: Path, sample: Sample, name: str = "made") -> None:
    png(root / "images" / f"{name}.png", sample.image)
    png(root / "masks" / f"{name}.png", sample.instances.astype(np.uint16))
    if sample.types is not None:
        png(root / "types" / f"{name}.png", sample.types)
        (root / "classes.yaml").write_text("classes: {0: background, 1: tumour, 2: other}\n")


def consep_png(root: Path, sample: Sample) -> None:
    """The types of the sample as 3 and 7 of the seven."""
    for split in ("train", "val"):
        seven = np.array([0, 3, 7], np.uint8)[sample.types]
        plain(root / split, dataclasses.replace(sample, types=seven), f"{split}_1")
        (root / split / "classes.yaml").unlink()
    (root / "classes.yaml").write_text("to_consep4: {1: 4, 2: 1, 3: 2, 4: 2, 5: 3, 6: 3, 7: 3}\n")


def cellvitpp(root: Path, sample: Sample) -> None:
    """One image to learn from and one to test on."""
    for split in ("train", "test"):
        png(root / split / "images" / f"{split}_1.png", sample.image)
        (root / split / "labels").mkdir()
        maps = {"inst_map": sample.instances, "type_map": sample.types.astype(np.int32)}
        np.save(root / split / "labels" / f"{split}_1.npy", maps)
    (root / "label_map.yaml").write_text("1: tumour\n2: other\n")


def feature(points, name: str | None = None, kind: str = "detection", **more) -> dict:
    """An object of QuPath with an outline, and more properties."""
    rings = [[*np.asarray(points).tolist(), np.asarray(points)[0].tolist()]]
    properties = {"objectType": kind} | ({"classification": {"name": name}} if name else {})
    geometry = {"type": "Polygon", "coordinates": rings}
    return {"type": "Feature", "geometry": geometry, "properties": properties | more}


def qupath(root: Path, sample: Sample) -> None:
    """An annotation of every nucleus."""
    names = {1: "lymphocyte", 2: "tumour"}
    features = [
        feature(points, names[type_of(sample, i)], "annotation")
        for i, points in outlines(sample).items()
    ]
    png(root / "made.png", sample.image)
    (root / "made.geojson").write_text(json.dumps(features))


MAKERS = {m.__name__: m for m in (monuseg, monusac, consep, lizard, pannuke, cellvit, plain)}
MAKERS |= {"consep-png": consep_png, "cellvit++": cellvitpp, "qupath": qupath}


def made(name: str, root: Path, **size: int) -> Sample:
    """The field that a set of this layout was made of."""
    sample = field(**size)
    MAKERS[name](root, sample)
    return sample
