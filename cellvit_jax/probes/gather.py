"""Labels and embeddings together: the bags that there are, and what had to be left aside."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from cellvit_jax.errors import InputError
from cellvit_jax.probes import bags, labels
from cellvit_jax.probes.bags import Bags, Patches
from cellvit_jax.probes.labels import Label

MADE_BY = ("model", "pool", "tile")  # of the arguments of `embed`, what vectors depend on
REPORT = "report.json"  # of `embed`
SHOWN = 5  # names in a sentence


@dataclasses.dataclass(frozen=True, eq=False)
class Gathered:
    """Bags of `what` (slides or patches), the `splits` (B,) that were given for them, the names of
    the `classes`, what the vectors were `made_by`, and sentences on what was left aside."""

    bags: Bags
    what: str
    splits: list[str | None]
    classes: tuple[str, ...]
    made_by: dict[str, Any] | None
    notes: list[str]


def gather(folder: Path, table: Path, watched: Callable[[Iterator], Iterator] = iter) -> Gathered:
    """The labelled bags of the embeddings in a folder. Raises InputError.

    Left aside are slides without a label or without embeddings, patches whose vectors are no
    numbers, and slides without a patch.
    """
    files, lines = bags.find(folder), labels.read(table)
    lines = [
        dataclasses.replace(one, slide=labels.named(table, one.slide, set(files))) for one in lines
    ]
    wanted: dict[str, list[Label]] = {}
    for one in lines:
        wanted.setdefault(one.slide, []).append(one)
    used = {name: path for name, path in files.items() if name in wanted}
    if not used:
        raise InputError(
            f"{table} and {folder} have no slide in common: the table names {_some(wanted)}, the "
            f"embeddings are of {_some(files)}"
        )
    parts, dropped = [], 0
    for name, patches in bags.read_all(used, watched):
        dropped += patches.dropped
        parts += [(one, rows) for one in wanted[name] for rows in _rows(one, patches)]
    kept = [(one, rows) for one, rows in parts if len(rows)]
    notes = _notes(files, wanted, [one.slide for one, rows in parts if not len(rows)], dropped)
    return _gathered(kept, made_by(used), notes)


def _rows(one: Label, patches: Patches) -> list[np.ndarray]:
    """The vectors that a line speaks of."""
    if one.patch is None:
        return [patches.vectors]
    found = patches.vectors[patches.ids == one.patch]
    if not len(found) and not patches.dropped:
        raise InputError(f"{one.slide} has no patch {one.patch} among its embeddings")
    return [found]


def _gathered(
    kept: list[tuple[Label, np.ndarray]], made: dict[str, Any] | None, notes: list[str]
) -> Gathered:
    lines = [one for one, _ in kept]
    classes = tuple(sorted({one.label for one in lines}))
    if len(classes) < 2:
        raise InputError(
            f"two classes or more are needed: all {len(lines)} that have embeddings are "
            f"{' and '.join(classes) or 'empty'}"
        )
    people = {name: i for i, name in enumerate(dict.fromkeys(one.patient for one in lines))}
    names = [one.slide if one.patch is None else f"{one.slide}/{one.patch}" for one in lines]
    gathered = Bags(
        np.concatenate([rows for _, rows in kept]),
        np.cumsum([0, *(len(rows) for _, rows in kept)]),
        np.array([classes.index(one.label) for one in lines]),
        np.array([people[one.patient] for one in lines]),
        np.array(names),
    )
    what = "slides" if lines[0].patch is None else "patches"
    return Gathered(gathered, what, [one.split for one in lines], classes, made, notes)


def _notes(
    files: dict[str, Path], wanted: dict[str, Any], empty: Sequence[str], dropped: int
) -> list[str]:
    absent, unnamed = sorted(wanted.keys() - files), sorted(files.keys() - wanted)
    said = {
        f"{len(absent)} in the table have no embeddings: {_some(absent)}": absent,
        f"{len(unnamed)} of the embeddings have no label: {_some(unnamed)}": unnamed,
        f"{len(empty)} have no usable patch: {_some(empty)}": empty,
        f"{dropped} patches have vectors that are no numbers": dropped,
    }
    return [sentence for sentence, there in said.items() if there]


def _some(names: Any) -> str:
    first = list(names)[:SHOWN]
    return ", ".join(first) + (", …" if len(names) > len(first) else "")


def made_by(files: dict[str, Path]) -> dict[str, Any] | None:
    """What vectors depend on, as `embed` noted it beside them; None where that is not there.

    Raises InputError where slides differ.
    """
    seen: dict[str, dict[str, Any]] = {}
    for name, path in files.items():
        try:
            arguments = orjson.loads((path.parent / REPORT).read_bytes())["arguments"]
            seen[name] = {key: arguments[key] for key in MADE_BY}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    first = next(iter(seen.items()), None)
    for name, one in seen.items():
        if first and one != first[1]:
            raise InputError(
                f"{first[0]} and {name} were not embedded in the same way ({first[1]}, {one}): "
                "vectors of two networks cannot be compared"
            )
    return first and first[1]
