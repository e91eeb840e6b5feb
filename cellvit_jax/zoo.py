"""Weights by name: the bundled ones, and the published ones that anybody can convert."""

from __future__ import annotations

import difflib
from pathlib import Path

from cellvit_jax.errors import InputError

ASSETS = Path(__file__).parent / "assets"
BUNDLED = {"cellvit-tiny-consep": ASSETS / "cellvit-tiny-consep"}
DEFAULT = "cellvit-tiny-consep"

# published weights, whose licence forbids bundling: name -> file that the authors distribute
PUBLISHED = {
    "cellvit-256-x40": "CellViT-256-x40-AMP.pth",
    "cellvit-sam-h-x40": "CellViT-SAM-H-x40-AMP.pth",
    "cellvit-virchow-x40": "cellvit-virchowx40.pth",
    "sam-med2d-h-x40": "sam-med2d-vit-h-x40.pth",
}
ALIASES = {
    "cellvit-256x40": "cellvit-256-x40",
    "cellvit-samx40": "cellvit-sam-h-x40",
    "cellvit-virchowx40": "cellvit-virchow-x40",
    "sam-med2d-vit-h-x40": "sam-med2d-h-x40",
}


def find(name: str | Path) -> Path:
    """The checkpoint directory that `name` stands for: a bundled model's name, or a path.

    Raises `InputError` that says which names exist and how to convert a published file.
    """
    if str(name) in BUNDLED:
        return BUNDLED[str(name)]
    path = Path(name)
    if path.is_dir():
        return path
    if path.is_file():
        raise InputError(f"{path} is a file: convert it with `cellvit-convert {path} DIR`, use DIR")
    known = ALIASES.get(str(name), str(name))
    if known in PUBLISHED:
        raise InputError(
            f"{known} is not bundled: download {PUBLISHED[known]} from its authors, run "
            f"`cellvit-convert {PUBLISHED[known]} {known}`, and give that folder"
        )
    raise InputError(_unknown(str(name)))


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, [*BUNDLED, *PUBLISHED, *ALIASES], n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return (
        f"there is no model or folder {name!r}{hint}. Bundled: {', '.join(BUNDLED)}. Any "
        "CellViT .pth becomes a model folder with `cellvit-convert FILE.pth DIR`"
    )
