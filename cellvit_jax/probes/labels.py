"""The table of labels: of slides or of single patches, perhaps with patients and a split.

A CSV with a head: `slide` (the name of its folder of embeddings, or of its file), `label`, and if
there are any `patch` (the id of one in the embeddings), `patient` and `split` (train, val, test).
"""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

from cellvit_jax.errors import InputError
from cellvit_jax.slides.collection import slide_name

COLUMNS = {
    "slide": ("slide", "tile", "image", "name", "id"),
    "label": ("label", "class"),
    "patch": ("patch", "patch_id"),
    "patient": ("patient", "patient_id", "case"),
    "split": ("split", "fold"),
}
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= dict.fromkeys(("val", "valid", "validation"), "val")


@dataclasses.dataclass(frozen=True)
class Label:
    """A line of the table: `patch` is None where the whole slide is meant."""

    slide: str
    label: str
    patch: int | None
    patient: str
    split: str | None


def read(path: Path) -> list[Label]:
    """The lines of a table, checked. Raises InputError with a sentence for what is wrong with it.

    Without a patient, each slide is of one of its own.
    """
    rows, columns = _rows(path)
    found = [_line(path, number, row, columns) for number, row in enumerate(rows, 2)]
    if not found:
        raise InputError(f"{path} has no line below its head")
    _check_unique(path, found)
    _check_patients(path, found)
    return found


def named(path: Path, line: str, known: set[str]) -> str:
    """The slide that a line means: the name itself, or that of a file."""
    return line if line in known else slide_name(Path(line))


def _rows(path: Path) -> tuple[list[list[str]], dict[str, int]]:
    try:
        rows = [row for row in csv.reader(path.read_text("utf-8-sig").splitlines()) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the table {path} cannot be read ({error})") from error
    head = [field.strip().lower() for field in rows[0]] if rows else []
    columns = {
        column: head.index(name)
        for column, names in COLUMNS.items()
        for name in names[::-1]
        if name in head
    }
    if missing := {"slide", "label"} - columns.keys():
        raise InputError(
            f"the first line of {path} names no column {' and no '.join(sorted(missing))}: "
            "it should be slide,label and perhaps patch, patient, split"
        )
    return rows[1:], columns


def _line(path: Path, number: int, row: list[str], columns: dict[str, int]) -> Label:
    try:
        fields = {name: row[place].strip() for name, place in columns.items()}
    except IndexError as error:
        raise InputError(f"line {number} of {path} has too few columns") from error
    if empty := [name for name, value in fields.items() if not value]:
        raise InputError(f"line {number} of {path} has no {empty[0]}")
    patch, split = fields.get("patch"), fields.get("split")
    if patch is not None and not patch.isdecimal():
        raise InputError(f"line {number} of {path}: a patch is a number, not {patch!r}")
    if split is not None and split.lower() not in SPLITS:
        raise InputError(f"line {number} of {path}: split is train, val or test, not {split!r}")
    slide = fields["slide"]
    return Label(
        slide,
        fields["label"],
        None if patch is None else int(patch),
        fields.get("patient", slide),
        None if split is None else SPLITS[split.lower()],
    )


def _check_unique(path: Path, found: list[Label]) -> None:
    seen: set[tuple[str, int | None]] = set()
    for one in found:
        if (one.slide, one.patch) in seen:
            patch = "" if one.patch is None else f"patch {one.patch} of "
            raise InputError(f"{path} labels {patch}{one.slide} twice")
        seen.add((one.slide, one.patch))


def _check_patients(path: Path, found: list[Label]) -> None:
    """Nobody is in two parts, and no slide is of two people."""
    patients: dict[str, str] = {}
    splits: dict[str, str | None] = {}
    for one in found:
        if (other := patients.setdefault(one.slide, one.patient)) != one.patient:
            raise InputError(f"{path} says that {one.slide} is of {other} and of {one.patient}")
        if (split := splits.setdefault(one.patient, one.split)) != one.split:
            who = f"patient {one.patient}" if one.patient != one.slide else one.slide
            raise InputError(
                f"{who} is in {split} and in {one.split} of {path}: figures would not be about "
                "patients that were never seen; put each of them into one part"
            )
