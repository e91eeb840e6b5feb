"""Which slides people mean: files, folders, patterns and lists."""

from __future__ import annotations

import csv
import dataclasses
import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cellvit_jax.errors import InputError
from cellvit_jax.slides.slide import Slide

ENDINGS = (
    *(".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".dcm"),
    *(".tif", ".tiff", ".png", ".jpg", ".jpeg", ".npy"),
)
DOUBLE = (".ome",)  # what comes before such an ending and is no part of the name


@dataclasses.dataclass(frozen=True)
class Listed:
    """A slide's file or folder, and the µm per pixel that a list gives it."""

    path: Path
    mpp: float | None = None

    @property
    def name(self) -> str:
        """What the results are called."""
        return slide_name(self.path)

    def evidence(self, slide: Slide) -> dict[str, str | int]:
        """By what a result is known to be of this slide, opened as `slide`; plain values."""
        files = [self.path, *self.path.iterdir()] if self.path.is_dir() else [self.path]
        stats = [path.stat() for path in files]
        return {
            "slide": self.path.name,
            "bytes": sum(stat.st_size for stat in stats),
            "modified": max(stat.st_mtime_ns for stat in stats),
        }


def slide_name(path: Path) -> str:
    """The name of a file without its ending, `.ome.tif` being one; that of a folder whole."""
    if path.is_dir():
        return path.name
    stem = Path(path.stem)
    return stem.stem if stem.suffix.lower() in DOUBLE else path.stem


def find(inputs: Sequence[Path], extensions: Iterable[str] = ()) -> list[Listed]:
    """The slides of files, folders (not those inside them), quoted patterns and CSV files.

    A folder of DICOM files is one slide. A CSV has a path and, if it likes, µm per pixel in each
    line, with or without a head that names `path` and `mpp`; paths are relative to its own folder.
    Of folders only files with one of `extensions` count, in any case and with or without the dot,
    by default all that can be opened. Raises InputError for what holds no slide.
    """
    endings = tuple(f".{e.lower().lstrip('.')}" for e in extensions) or ENDINGS
    if not inputs:
        raise InputError("give at least one image or slide")
    found = [one for path in inputs for one in _listed(path, endings)]
    return list({one.path.resolve(): one for one in found}.values())


def _listed(path: Path, endings: tuple[str, ...]) -> list[Listed]:
    if path.is_dir():
        return _folder(path, endings)
    if path.suffix.lower() == ".csv":
        return _csv(path)
    if not path.exists() and glob.has_magic(str(path)):
        matches = sorted(map(Path, glob.glob(str(path), recursive=True)))
        found = [one for match in matches for one in _match(match, endings)]
        return _some(found, f"{path} matches no slide")
    return [Listed(path)]


def _match(path: Path, endings: tuple[str, ...]) -> Iterator[Listed]:
    if (path.is_dir() and is_dicom(path)) or (path.is_file() and path.suffix.lower() in endings):
        yield Listed(path)


def _folder(folder: Path, endings: tuple[str, ...]) -> list[Listed]:
    if is_dicom(folder):
        return [Listed(folder)]
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error
    found = [one for path in paths for one in _match(path, endings)]
    return _some(found, f"{folder} holds no slide (no file that ends in {', '.join(endings)})")


def is_dicom(folder: Path) -> bool:
    """Whether a folder holds DICOM files, and so is one slide."""
    return any(_has_dicom_magic(path) for path in folder.iterdir() if path.is_file())


def _has_dicom_magic(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _csv(path: Path) -> list[Listed]:
    try:
        rows = [row for row in csv.reader(path.read_text("utf-8-sig").splitlines()) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the list {path} cannot be read ({error})") from error
    head = [field.strip().lower() for field in rows[0]] if rows else []
    columns = (0, 1)
    if "path" in head:
        columns = head.index("path"), next((i for i, n in enumerate(head) if "mpp" in n), -1)
        rows = rows[1:]
    listed = [_line(path, [field.strip() for field in row], columns) for row in rows]
    return _some(listed, f"the list {path} names no slide")


def _line(source: Path, fields: list[str], columns: tuple[int, int]) -> Listed:
    first, second = columns
    stated = fields[second] if 0 <= second < len(fields) else ""
    try:
        return Listed(source.parent / fields[first], float(stated) if stated else None)
    except (IndexError, ValueError) as error:
        raise InputError(
            f"the list {source} has a line that is no path[,mpp]: {','.join(fields)}"
        ) from error


def _some(found: list[Listed], otherwise: str) -> list[Listed]:
    if not found:
        raise InputError(otherwise)
    return found
