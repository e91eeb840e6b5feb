"""Weights by name: the bundled ones, and the published ones that anybody can convert."""

from __future__ import annotations

import urllib.parse
from pathlib import Path
from typing import NamedTuple

from cellvit_jax.errors import InputError, hint

ASSETS = Path(__file__).parent / "assets"
BUNDLED = {"cellvit-tiny-consep": ASSETS / "cellvit-tiny-consep"}
DEFAULT = "cellvit-tiny-consep"


class Published(NamedTuple):
    """A file that its authors distribute; `aliases` are other names that it goes by.

    `url` is empty where it has no stable address; `checksum`, as "md5:..." or "sha256:...", where
    none is known here: a server's own may take its place (see `fetch`).
    """

    file: str
    url: str = ""
    checksum: str = ""
    aliases: tuple[str, ...] = ()


def _zenodo(record: int, file: str, *aliases: str) -> Published:
    url = f"https://zenodo.org/records/{record}/files/{file}?download=1"
    return Published(file, url, aliases=aliases)


# published weights, whose licence forbids bundling
PUBLISHED = {
    "cellvit-256-x40": _zenodo(15094831, "CellViT-256-x40-AMP.pth", "cellvit-256x40"),
    "cellvit-sam-h-x40": _zenodo(15094831, "CellViT-SAM-H-x40-AMP.pth", "cellvit-samx40"),
    "cellvit-virchow-x40": Published("cellvit-virchowx40.pth", aliases=("cellvit-virchowx40",)),
    "sam-med2d-h-x40": Published("sam-med2d-vit-h-x40.pth", aliases=("sam-med2d-vit-h-x40",)),
}
ALIASES = {alias: name for name, known in PUBLISHED.items() for alias in known.aliases}


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
        raise InputError(f"{known} is not bundled: {_how(known)}, and give that folder")
    raise InputError(_unknown(str(name)))


def published(name: str) -> Published:
    """What to download for the name of published weights, or for an address.

    Raises `InputError` for names that are unknown, or that have no address.
    """
    if urllib.parse.urlsplit(name).scheme in ("http", "https"):
        return Published(Path(urllib.parse.urlsplit(name).path).name, name)
    known = ALIASES.get(name, name)
    if known in BUNDLED:
        raise InputError(f"{known} is bundled: there is nothing to fetch")
    if known not in PUBLISHED:
        raise InputError(_unknown(name))
    if not PUBLISHED[known].url:
        raise InputError(f"{known} has no address that is known here: {_how(known)}")
    return PUBLISHED[known]


def _how(known: str) -> str:
    """How to come by published weights."""
    file = PUBLISHED[known].file
    if PUBLISHED[known].url:
        return f"run `cellvit-jax fetch {known} {known}` (or `cellvit-convert {file} {known}`)"
    return f"get {file} from its authors, then run `cellvit-convert {file} {known}`"


def _unknown(name: str) -> str:
    near = hint(name, [*BUNDLED, *PUBLISHED, *ALIASES])
    return (
        f"there is no model or folder {name!r}{near}. Bundled: {', '.join(BUNDLED)}; published: "
        f"{', '.join(PUBLISHED)}. A .pth of CellViT or SAM becomes a model folder with "
        "`cellvit-convert FILE.pth DIR`"
    )
