"""Annotated data by its path alone: the layout is told from what lies there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from cellvit_jax.data import aperio, files
from cellvit_jax.data.dataset import Dataset
from cellvit_jax.data.layouts import (
    cellvit,
    cellvitpp,
    consep,
    lizard,
    monusac,
    monuseg,
    pannuke,
    plain,
    qupath,
)
from cellvit_jax.data.lazy import Lazy
from cellvit_jax.errors import InputError

# what archives call the part to learn from, and the one to choose by
TRAINING = ("train", "training")
VALIDATION = ("val", "valid", "validation")
MANY = 12  # names in a sentence


def _yes(root: Path) -> bool:
    return True


@dataclasses.dataclass(frozen=True)
class Layout:
    """What must lie in a folder, or where `nested` in folders of it, and who reads it.

    `holds` looks into the files where names do not tell two layouts apart.
    """

    needs: tuple[str, ...]
    open: Callable[[Path], dict[str, Dataset]]
    holds: Callable[[Path], bool] = _yes
    nested: bool = True

    def named(self, root: Path) -> bool:
        """Whether the files of a folder are named so."""
        return bool(files.parts(root, self.needs) if self.nested else files.has(root, self.needs))

    def fits(self, root: Path) -> bool:
        """Whether this is how the data in a folder lies."""
        return self.named(root) and self.holds(root)


def _open_prepared(root: Path) -> dict[str, Dataset]:
    from cellvit_jax.data import prepared

    return prepared.open(root)


# the first that fits; last those whose files may lie at any depth, so that all of it is searched
LAYOUTS = {
    "prepared": Layout(("dataset_info.json", "features.json"), _open_prepared, nested=False),
    "cellvit++": Layout(cellvitpp.NEEDS, cellvitpp.open, nested=False),
    "cellvit++-points": Layout(cellvitpp.POINT_NEEDS, cellvitpp.open_points, nested=False),
    "cellvit": Layout(cellvit.NEEDS, cellvit.open),
    "consep-png": Layout(consep.PNG_NEEDS, consep.open_png, consep.holds_png),
    "plain": Layout(plain.NEEDS, plain.open),
    "consep": Layout(consep.NEEDS, consep.open, consep.holds),
    "qupath": Layout(qupath.NEEDS, qupath.open, nested=False),
    "pannuke": Layout(pannuke.NEEDS, pannuke.open, nested=False),
    "lizard": Layout(lizard.NEEDS, lizard.open, lizard.holds, nested=False),
    "monusac": Layout(monusac.NEEDS, monusac.open, monusac.holds, nested=False),
    "monuseg": Layout(monuseg.NEEDS, monuseg.open, aperio.holds_outlines, nested=False),
}


def open_dataset(path: str | Path, split: str | None = None, layout: str | None = None) -> Dataset:
    """Annotated data in any of the `LAYOUTS` (see docs/data.md), read lazily.

    `split` is the name of a folder, fold or part in any case; it may be left out where there is but
    one. Raises `InputError`, with what was expected and what is there, for a path of no known
    layout or without that split.
    """
    splits = open_splits(path, layout)
    if split is None and len(splits) == 1:
        return next(iter(splits.values()))
    found = splits.get((split or "").lower())
    if found is None:
        problem = f"{path} has no split {split!r}" if split else f"{path} has several splits"
        raise InputError(f"{problem}: give one of {', '.join(splits)}")
    return found


def open_splits(path: str | Path, layout: str | None = None) -> dict[str, Dataset]:
    """All parts of annotated data by name; data in one part has the split "all".

    Raises `InputError` as `open_dataset` does.
    """
    root = Path(path)
    if not root.is_dir():
        raise InputError(
            f"{path} is {'a file' if root.exists() else 'not there'}, expected a folder"
        )
    if layout and layout not in LAYOUTS:
        raise InputError(f"there is no layout {layout!r}: give one of {', '.join(LAYOUTS)}")
    splits = LAYOUTS[layout or find_layout(root)].open(root)
    if empty := [split for split, part in splits.items() if not len(part.samples)]:
        raise InputError(f"{path} holds no fields in {', '.join(empty)}")
    return splits


def disjoint(splits: dict[str, Dataset]) -> dict[str, Dataset]:
    """The splits without those, such as folds, that hold nothing but fields of those before."""
    seen: set[object] = set()
    kept = {}
    for split, part in splits.items():
        items = set(part.samples.items) if isinstance(part.samples, Lazy) else {id(part)}
        if not items <= seen:
            kept[split] = part
        seen |= items
    return kept


def find_layout(root: Path) -> str:
    """The name of the layout in a folder. Raises InputError where it is none that is known."""
    if (name := _fitting(root)) is None:
        raise InputError(_unknown(root))
    return name


def is_annotated(path: str | Path) -> bool:
    """Whether a folder is annotated data of a known layout."""
    return Path(path).is_dir() and _fitting(Path(path)) is not None


def _fitting(root: Path) -> str | None:
    return next((name for name, layout in LAYOUTS.items() if layout.fits(root)), None)


def _unknown(root: Path) -> str:
    held = sorted(f"{p.name}/" if p.is_dir() else p.name for p in root.iterdir())
    more = f" and {len(held) - MANY} more" if len(held) > MANY else ""
    sentence = f"{root} is annotated data of no known layout: it holds "
    sentence += (", ".join(held[:MANY]) or "nothing") + more
    if close := _complaint(root) or _closest(root):
        sentence += f"\nclosest is {close}"
    return f"{sentence}\nknown are {', '.join(LAYOUTS)}; docs/data.md shows them"


def _complaint(root: Path) -> str:
    """The first layout whose files are there by name, and what it says of their content."""
    for name, layout in LAYOUTS.items():
        if layout.named(root):
            try:
                for part in layout.open(root).values():
                    list(part.samples[:1])
            except InputError as error:
                return f"{name!r}: {error}"
    return ""


def _closest(root: Path) -> str:
    """The layout that lacks least and what that is, if anything of any is there."""
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    found = []
    for name, layout in LAYOUTS.items():
        for folder in folders if layout.nested else folders[:1]:
            there = [need for need in layout.needs if files.has(folder, (need,))]
            missing = [need for need in layout.needs if need not in there]
            if there and missing:
                lacks = f"{folder} has {', '.join(there)}, but no {', '.join(missing)}"
                found.append((len(missing), f"{name!r}: {lacks}"))
    return min(found, key=lambda one: one[0])[1] if found else ""
