"""MoNuSeg (Kumar et al. 2017, 2020): all nuclei of seven organs, without types.

    ROOT[/SPLIT]/{Tissue Images/NAME.tif, Annotations/NAME.xml}    the training part
    ROOT[/SPLIT]/{NAME.tif, NAME.xml}                              the test part

Outlines are corner-based (the half pixel that fits the images best); where nuclei overlap, the
smaller one wins.
"""

from __future__ import annotations

from pathlib import Path

from cellvit_jax.data import files
from cellvit_jax.data.aperio import read_outlines
from cellvit_jax.data.dataset import Dataset, Sample
from cellvit_jax.data.lazy import Lazy
from cellvit_jax.data.rasterise import label_image
from cellvit_jax.errors import InputError

NEEDS = ("**/*.xml",)


def open(root: Path) -> dict[str, Dataset]:
    """The folders with XML files, each a split; a single one is "all". Raises InputError."""
    if has_pairs(root):
        return {"all": _dataset(root)}
    inside = sorted(path for path in root.iterdir() if path.is_dir() and has_pairs(path))
    return {path.name.lower(): _dataset(path) for path in inside}


def has_pairs(folder: Path) -> bool:
    """Whether a folder has XML files itself or in a folder of annotations."""
    return any(folder.glob("*.xml")) or any(folder.glob("[Aa]nnotations/*.xml"))


def _dataset(folder: Path) -> Dataset:
    return Dataset(
        "MoNuSeg",
        Lazy(read, with_xml(folder)),
        (),
        license="CC BY-NC-SA 4.0",
        citation="Kumar et al., IEEE TMI 36, 2017; Kumar et al., IEEE TMI 39, 2020",
    )


def with_xml(folder: Path) -> tuple[tuple[Path, Path], ...]:
    """The image and the XML file of every XML file below a folder, in order of names.

    Of two images of one name the TIFF is taken, which opens faster than a slide. Raises InputError.
    """
    found = sorted(folder.rglob("*"), key=lambda path: path.suffix.lower() in files.TIFFS)
    images = {path.stem: path for path in found if path.suffix.lower() in files.IMAGES}
    xmls = sorted(path for path in found if path.suffix.lower() == ".xml")
    if missing := [path for path in xmls if path.stem not in images]:
        raise InputError(f"{missing[0]} has no image of the same name in {folder}")
    return tuple((images[path.stem], path) for path in xmls)


def read(item: tuple[Path, Path]) -> Sample:
    """The field of an image and its XML file."""
    path, xml = item
    outlines, image = read_outlines(xml), files.read_image(path)
    return files.field(path, image, label_image(outlines.shapes, image.shape[:2]), None, 0)
