"""Images with instance masks (and types): the plainest layout.

    ROOT[/SPLIT]/{images,masks[,types]}/NAME.png    ROOT/classes.yaml

`masks` are integer label images (0 = background), PNG or TIFF; `types` one class id per pixel.
`classes.yaml` names the ids, `classes: {1: tumour, 2: lymphocyte}`, and may say `mpp`, `license`,
`citation` and `tissues`, a list of names; then `tissues.csv` beside `images` has rows image,tissue.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cellvit_jax import label_map
from cellvit_jax.data import files
from cellvit_jax.data.dataset import Dataset, Sample
from cellvit_jax.data.lazy import Lazy
from cellvit_jax.errors import InputError

NEEDS = ("images/*.*", "masks/*.*")  # files: PanNuke has folders in folders of these names
ABOUT, TISSUES = "classes.yaml", "tissues.csv"
NO_NAMES = (
    "{root} has types/ but no classes.yaml that names them: write one with a line such as\n"
    "classes: {{1: tumour, 2: lymphocyte}}"
)


def open(root: Path) -> dict[str, Dataset]:
    """The splits of a folder. Raises InputError."""
    return {split: _dataset(root, part) for split, part in files.parts(root, NEEDS).items()}


def _dataset(root: Path, part: Path) -> Dataset:
    about = find_about(part)
    if not about and (part / "types").is_dir():
        raise InputError(NO_NAMES.format(root=part))
    names = label_map.of_masks(part / ABOUT, about["classes"]) if "classes" in about else ()
    facts = _facts(part, about)
    tissues = facts["tissues"]
    known = files.read_tissues(part / TISSUES, tissues) if tissues else {}
    samples = fields(part, len(names), tissues=known)
    return Dataset(str(about.get("name", root.name)), samples, names, **facts)


def _facts(part: Path, about: dict[Any, Any]) -> dict[str, Any]:
    mpp, tissues = about.get("mpp", Dataset.mpp), about.get("tissues", [])
    if not isinstance(mpp, int | float) or mpp <= 0 or not isinstance(tissues, list):
        raise InputError(
            f"{ABOUT} of {part} has mpp {mpp!r} and tissues {tissues!r}; expected a number of µm "
            "per pixel and a list of names"
        )
    texts = {name: str(about.get(name, "")) for name in ("license", "citation")}
    return {"mpp": float(mpp), "tissues": tuple(map(str, tissues)), **texts}


def find_about(part: Path) -> dict[Any, Any]:
    """What `classes.yaml` says, in the folder or the one above; nothing where there is none."""
    found = [p for folder in (part, part.parent) if (p := folder / ABOUT).is_file()]
    return files.read_yaml(found[0]) if found else {}


def fields(
    part: Path,
    classes: int,
    merge: Mapping[int, int] | None = None,
    tissues: Mapping[str, int] | None = None,
) -> Lazy:
    """All fields of a folder in order of names; `merge` maps type ids on disk to class ids.

    `tissues` are those of the images, by name. Raises InputError where an image has no mask or no
    types.
    """
    images = files.images(part / "images") if (part / "images").is_dir() else {}
    if not images:
        raise InputError(
            f"{part} holds no images (expected images/, masks/ and maybe types/, of PNG files)"
        )
    masks = _beside(part / "masks", images)
    types = _beside(part / "types", images) if (part / "types").is_dir() else dict.fromkeys(images)
    known = tissues or {}
    items = tuple(
        (path, masks[name], types[name], known.get(name)) for name, path in images.items()
    )
    return Lazy(partial(read, classes=classes, merge=merge), items)


def _beside(folder: Path, images: dict[str, Path]) -> dict[str, Path]:
    found = files.images(folder) if folder.is_dir() else {}
    if missing := [name for name in images if name not in found]:
        raise InputError(
            f"{folder / missing[0]}.png is missing, as are {len(missing) - 1} more of "
            f"{len(images)}: every image needs one"
        )
    return found


def read(
    item: tuple[Path, Path, Path | None, int | None],
    classes: int,
    merge: Mapping[int, int] | None = None,
) -> Sample:
    """The field of an image, its mask, and where there are any, its types and its tissue."""
    image, mask, type_map, tissue = item
    types = None if type_map is None else merged(files.read_labels(type_map), merge)
    instances = files.read_labels(mask)
    return files.field(image, files.read_image(image), instances, types, classes, tissue)


def merged(types: np.ndarray, merge: Mapping[int, int] | None) -> np.ndarray:
    """Type ids on disk → class ids; what `merge` does not name stays."""
    if not merge:
        return types
    table = np.arange(max(int(types.max(initial=0)), *merge) + 1)
    for old, new in merge.items():
        table[old] = new
    return table[types]
