"""What annotated data holds, for people: counts, and what to look at before training on it."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from cellvit_jax.data.census import Census, census
from cellvit_jax.data.dataset import Dataset
from cellvit_jax.data.lazy import Watch, unwatched
from cellvit_jax.errors import printable

UNTYPED = "no type"
FEW_IDS = 2  # connected pieces per id: no label image of nuclei has so many


@dataclasses.dataclass(frozen=True)
class Summary:
    """The counts of each split of a set in a layout."""

    name: str
    layout: str
    splits: Mapping[str, Dataset]
    counted: Mapping[str, list[Census]]

    def __str__(self) -> str:
        facts = _facts(self)
        lines = [f"{name:10} {value}" for name, value in facts.items() if value]
        table = _table(self)
        warnings = [f"warning: {text}" for text in self.warnings()]
        return printable("\n".join([*lines, "", *table, *([""] if warnings else []), *warnings]))

    def warnings(self) -> list[str]:
        """What people should look at before they train on it."""
        found = []
        for split, fields in self.counted.items():
            where = "" if split == "all" else f"{split}: "
            found += [where + text for text in _warnings(fields, self.splits[split])]
        return found + _shared(self.counted)


def inspect(
    path: str | Path, layout: str, splits: Mapping[str, Dataset], watch: Watch = unwatched
) -> Summary:
    """Reads every field of the splits and counts what is in it; several are read at once."""
    counted = {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for split, part in splits.items():
            fields = pool.map(partial(_count, part), range(len(part.samples)))
            counted[split] = list(watch(fields, split, 0, len(part.samples)))
    return Summary(str(path), layout, splits, counted)


def _count(dataset: Dataset, i: int) -> Census:
    return census(dataset.samples[i])


def _facts(summary: Summary) -> dict[str, str]:
    first = next(iter(summary.splits.values()))
    return {
        "data": f"{first.name}, layout {summary.layout}",
        "classes": ", ".join(f"{i} {name}" for i, name in enumerate(first.classes, 1)) or "none",
        "nuclei are": "outlined" if first.outlined else "pointed at, in some fields or all",
        "resolution": f"{first.mpp:g} µm per pixel",
        "license": first.license,
        "cite": first.citation,
    }


def _table(summary: Summary) -> list[str]:
    """A row a figure, a column a split."""
    columns = [_column(summary.counted[split], part) for split, part in summary.splits.items()]
    heads = ["" if split == "all" else split for split in summary.splits]
    rows = {name: [column.get(name, "0") for column in columns] for name in columns[0]}
    for column in columns[1:]:  # tissues that the first split does not have
        rows |= {name: [c.get(name, "0") for c in columns] for name in column if name not in rows}
    table = [("", *heads)] if any(heads) else []
    table += [(name, *values) for name, values in rows.items()]
    name, *widths = (max(map(len, column)) for column in zip(*table, strict=True))
    return [
        f"{label:{name}}"
        + "".join(f"  {value:>{width}}" for value, width in zip(values, widths, strict=True))
        for label, *values in table
    ]


def _column(fields: list[Census], dataset: Dataset) -> dict[str, str]:
    nuclei = [len(field) for field in fields]
    column = {
        "fields": f"{len(fields):,}",
        "height × width": _range([f"{h} × {w}" for h, w in sorted({f.size for f in fields})]),
        "nuclei": f"{sum(nuclei):,}",
        "nuclei a field, median": f"{np.median(nuclei):,.0f}",
        "nuclei a field, range": f"{min(nuclei):,} to {max(nuclei):,}",
    }
    if areas := [field.areas for field in fields if len(field.areas)]:
        diameter = np.median(2 * np.sqrt(np.concatenate(areas) / np.pi))
        column["diameter, median"] = f"{diameter:.0f} px ({diameter * dataset.mpp:.1f} µm)"
    return column | _types(fields, dataset) | _tissues(fields, dataset)


def _range(sizes: list[str]) -> str:
    return sizes[0] if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"


def _types(fields: list[Census], dataset: Dataset) -> dict[str, str]:
    counts = type_counts(fields)
    total = max(1, sum(counts.values()))
    names = dict(enumerate(dataset.classes, 1)) | ({0: UNTYPED} if counts[0] else {})
    if not dataset.classes:
        return {}
    return {name: f"{counts[i]:,} ({counts[i] / total:.0%})" for i, name in names.items()}


def type_counts(fields: list[Census]) -> Counter[int]:
    """How many nuclei there are of each class id."""
    counts: Counter[int] = Counter()
    for field in fields:
        counts.update(field.types.tolist())
    return counts


def _tissues(fields: list[Census], dataset: Dataset) -> dict[str, str]:
    counts = Counter(field.tissue for field in fields if field.tissue is not None)
    return {f"fields of {dataset.tissues[i]}": f"{n:,}" for i, n in sorted(counts.items())}


def _warnings(fields: list[Census], dataset: Dataset) -> list[str]:
    """What is odd about the fields of one split."""
    typed = [field for field in fields if field.typed]
    of_no_type = sum(int((field.types == 0).sum()) for field in typed)
    missing = set(range(1, len(dataset.classes) + 1)) - set(type_counts(fields))
    merged = [f for f in fields if f.pieces > FEW_IDS * len(f) > 0]
    found = {
        "fields without any nucleus: {}": _named([f for f in fields if not len(f)]),
        "fields without types: {}": _named([f for f in fields if not f.typed])
        if dataset.classes
        else "",
        "nuclei without a type: {}": f"{of_no_type:,}" if of_no_type and dataset.classes else "",
        "classes without a nucleus: {}": ", ".join(dataset.classes[i - 1] for i in sorted(missing)),
        "masks with far more pieces than ids; is there one id for each nucleus? {}": _named(merged),
    }
    return [text.format(what) for text, what in found.items() if what]


def _named(fields: list[Census], shown: int = 3) -> str:
    names = ", ".join(field.name for field in fields[:shown])
    return f"{len(fields)} ({names}{', …' if len(fields) > shown else ''})" if fields else ""


def _shared(counted: Mapping[str, list[Census]]) -> list[str]:
    """Images that are there twice: what is trained on is no measure of what was learnt."""
    places: defaultdict[bytes, list[str]] = defaultdict(list)
    for split, fields in counted.items():
        for field in fields:
            places[field.digest].append(f"{split}/{field.name}" if split != "all" else field.name)
    twice = [where for where in places.values() if len(where) > 1]
    if not twice:
        return []
    return [f"images that are there more than once: {len(twice)}, such as {', '.join(twice[0])}"]
