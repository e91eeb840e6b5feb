"""What `cellvit-jax data …` does, from opening to the last sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cellvit_jax.data import inspection, write
from cellvit_jax.data import sheet as contact_sheet
from cellvit_jax.data.dataset import Dataset
from cellvit_jax.data.layouts import qupath
from cellvit_jax.data.open import disjoint, find_layout, open_splits
from cellvit_jax.errors import InputError
from cellvit_jax.files import check_free
from cellvit_jax.inference.progress import watch

Splits = dict[str, Dataset]


def inspect(
    source: Path,
    names: Sequence[str] = (),
    layout: str | None = None,
    sheet: Path | None = None,
    *,
    quiet: bool = False,
) -> inspection.Summary:
    """Counts what the splits of annotated data hold; draws a contact sheet if a path is given."""
    splits = _chosen(source, names, layout)
    summary = inspection.inspect(source, layout or find_layout(source), splits, watch(quiet))
    if sheet:
        contact_sheet.write(summary, sheet)
    return summary


def prepare(
    source: Path,
    target: Path,
    names: Sequence[str] = (),
    layout: str | None = None,
    to: str = "prepared",
    *,
    overwrite: bool = False,
    quiet: bool = False,
) -> str:
    """Writes annotated data in another form, and says what was written. Raises OutputError."""
    check_free(target, overwrite and target.is_dir())
    splits = _chosen(source, names, layout)
    _writer(to)(splits, target, watch(quiet))
    return _written(splits, target)


def from_qupath(
    images: Path,
    annotations: Path,
    target: Path,
    classes: Sequence[str] = (),
    mpp: float | None = None,
    *,
    overwrite: bool = False,
    quiet: bool = False,
) -> str:
    """Writes a plain folder of QuPath's annotations, and says what was written."""
    check_free(target, overwrite and target.is_dir())
    splits = {"all": qupath.read(images, annotations, classes, mpp, pointed=False)}
    write.write_plain(splits, target, watch(quiet))
    return _written(splits, target)


def _chosen(source: Path, names: Sequence[str], layout: str | None) -> Splits:
    splits = open_splits(source, layout)
    if unknown := [name for name in names if name.lower() not in splits]:
        raise InputError(f"{source} has no split {unknown[0]!r}: give any of {', '.join(splits)}")
    return {name.lower(): splits[name.lower()] for name in names} or disjoint(splits)


def _writer(to: str) -> Callable[..., None]:
    if to == "prepared":
        from cellvit_jax.data import prepared

        return prepared.write
    return {"plain": write.write_plain, "cellvit": write.write_cellvit}[to]


def _written(splits: Splits, target: Path) -> str:
    counts = [
        f"{(n := len(part.samples)):,} field{'s' * (n != 1)}" + f" of {split}" * (split != "all")
        for split, part in splits.items()
    ]
    return f"wrote        {target}: {', '.join(counts)}"
