"""CoNSeP (Graham et al. 2019), its seven types merged to four as its benchmark does.

ROOT/{Train,Test}/{Images/NAME.png, Labels/NAME.mat}    as published: inst_map, type_map
ROOT/{train,val}/{images,masks,types}/NAME.png          with a classes.yaml of the seven types
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from cellvit_jax.data import files
from cellvit_jax.data.consep import CLASSES, MERGED
from cellvit_jax.data.dataset import Dataset, Sample
from cellvit_jax.data.layouts import plain
from cellvit_jax.data.layouts.plain import merged
from cellvit_jax.data.lazy import Lazy
from cellvit_jax.data.mat import first_variables, paired, read_mat

NEEDS = ("[Ii]mages/*", "[Ll]abels/*.mat")
PNG_NEEDS = (*plain.NEEDS, "types/*.*")
MAPS = ("inst_map", "type_map")


def holds(root: Path) -> bool:
    """Whether the .mat files are CoNSeP's: those of Lizard list the types in another way."""
    return set(MAPS) <= first_variables(root)


def open(root: Path) -> dict[str, Dataset]:
    """The splits of the published archive. Raises InputError."""
    return {
        split: _dataset(Lazy(read, paired(part, part)))
        for split, part in files.parts(root, NEEDS).items()
    }


def read(item: tuple[Path, Path]) -> Sample:
    """The field of an image and its .mat file."""
    image, label = item
    maps = read_mat(label, MAPS)
    types = merged(maps["type_map"].astype(np.int64), MERGED)
    return files.field(image, files.read_image(image), maps["inst_map"], types, len(CLASSES))


def holds_png(root: Path) -> bool:
    """Whether a folder of masks has the seven types of CoNSeP."""
    folders = files.parts(root, PNG_NEEDS).values()
    return any("to_consep4" in plain.find_about(folder) for folder in folders)


def open_png(root: Path) -> dict[str, Dataset]:
    """The splits of the same data as label images. Raises InputError."""
    fields = partial(plain.fields, classes=len(CLASSES), merge=MERGED)
    return {split: _dataset(fields(part)) for split, part in files.parts(root, PNG_NEEDS).items()}


def _dataset(samples: Lazy) -> Dataset:
    return Dataset(
        "CoNSeP",
        samples,
        CLASSES,
        license="Apache-2.0",
        citation="Graham et al., HoVer-Net, Medical Image Analysis 58, 2019",
    )
