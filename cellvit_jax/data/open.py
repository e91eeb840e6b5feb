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

    `holds` looks into the files where names do not tell two layouts apart; `images` says where
    those lie that no need names.
    """

    needs: tuple[str, ...]
    open: Callable[[Path], dict[str, Dataset]]
    holds: Callable[[Path], bool] = _yes
    nested: bool = True
    images: str = ""

    def named(self, root: Path) -> bool:
        """Whether the files of a folder are named so."""
        return bool(files.parts(root, self.needs) if self.nested else files.has(root, self.needs))

    def fits(self, root: Path) -> bool:
        """Whether this is how the data in a folder lies."""
        return self.named(root) and self.holds(root)

    def compared(self, root: Path) -> Compared:
        """The root, or a folder in it, that has most of the needs."""
        inside = sorted(path for path in root.iterdir() if path.is_dir()) if self.nested else []
        return max((self._of(folder) for folder in (root, *inside)), key=lambda one: len(one.there))

    def _of(self, folder: Path) -> Compared:
        there = tuple(need for need in self.needs if files.has(folder, (need,)))
        return Compared(folder, there, tuple(need for need in self.needs if need not in there))


@dataclasses.dataclass(frozen=True)
class Compared:
    """What a folder has of the needs of a layout, and what it lacks."""

    folder: Path
    there: tuple[str, ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        there = ", ".join(self.there) or "images"
        return f"{self.folder} has {there}, but no {', '.join(self.missing)}"

    @property
    def rank(self) -> tuple[int, int]:
        """Smallest where most is there and least is missing."""
        return -len(self.there), len(self.missing)


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
    "qupath": Layout(qupath.NEEDS, qupath.open, nested=False, images="*"),
    "pannuke": Layout(pannuke.NEEDS, pannuke.open, nested=False),
    "lizard": Layout(lizard.NEEDS, lizard.open, lizard.holds, nested=False, images="**/*"),
    "monusac": Layout(monusac.NEEDS, monusac.open, monusac.holds, nested=False, images="**/*"),
    "monuseg": Layout(
        monuseg.NEEDS, monuseg.open, aperio.holds_outlines, nested=False, images="**/*"
    ),
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
    name = layout or find_layout(root)
    lacks = layout and not LAYOUTS[name].named(root)  # what was found has all it needs
    splits = {} if lacks else LAYOUTS[name].open(root)
    if not splits:
        raise InputError(_misfit(root, name))
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


def _misfit(root: Path, name: str) -> str:
    """Why a folder cannot be opened in a layout."""
    layout = LAYOUTS[name]
    found = layout.compared(root)
    why = f"{found.folder} has no {', '.join(found.missing)}"
    if not found.missing:
        why = "it has them, but not in the folders that belong together"
    return (
        f"{root} is no annotated data of the layout {name!r}, which needs "
        f"{', '.join(layout.needs)}: it holds {_held(root)}\n{why}; docs/data.md shows the layout"
    )


def _held(root: Path) -> str:
    held = sorted(f"{p.name}/" if p.is_dir() else p.name for p in root.iterdir())
    more = f" and {len(held) - MANY} more" if len(held) > MANY else ""
    return (", ".join(held[:MANY]) or "nothing") + more


def _unknown(root: Path) -> str:
    sentence = f"{root} is annotated data of no known layout: it holds {_held(root)}"
    said = _complaint(root)
    close = said | _closest(root, max((len(LAYOUTS[name].needs) for name in said), default=0))
    if close:
        sentence += "\nclosest is " + "\nor ".join(f"{name!r}: {close[name]}" for name in close)
    return f"{sentence}\nknown are {', '.join(LAYOUTS)}; docs/data.md shows them"


def _complaint(root: Path) -> dict[str, str]:
    """The first layout whose files are there by name, and what it says of their content."""
    for name, layout in LAYOUTS.items():
        if layout.named(root):
            try:
                for part in layout.open(root).values():
                    list(part.samples[:1])
            except InputError as error:
                return {name: str(error)}
    return {}


def _closest(root: Path, enough: int) -> dict[str, str]:
    """The layouts of which most is there, at least so much, and what they lack.

    What lacks the same as the closest one is as close: the rest of that may be there by chance.
    Where only images are, those layouts whose needs name none.
    """
    found = {
        name: one
        for name, layout in LAYOUTS.items()
        if (one := layout.compared(root)).missing and (one.there or _holds_images(root, layout))
    }
    best = min(found.values(), key=lambda one: one.rank, default=None)
    if best is None or len(best.there) < enough:
        return {}
    return {
        name: str(one)
        for name, one in found.items()
        if one.rank == best.rank or one.missing == best.missing
    }


def _holds_images(root: Path, layout: Layout) -> bool:
    found = root.glob(layout.images) if layout.images else ()
    return any(path.suffix.lower() in files.IMAGES for path in found)
