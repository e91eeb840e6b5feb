"""Annotated data for people and other programs: plain folders, and the folds of CellViT."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np
import yaml

from cellvit_jax.data.census import nuclei
from cellvit_jax.data.dataset import Dataset, Sample
from cellvit_jax.data.layouts import plain
from cellvit_jax.data.layouts.cellvit import CONFIG, TISSUES
from cellvit_jax.data.lazy import Watch, unwatched, watched
from cellvit_jax.errors import InputError
from cellvit_jax.files import replacing_directory

UNKNOWN = "Unknown"  # CellViT wants a tissue of every image, and a type of every nucleus
MAX_ID = 65_535


def write_plain(splits: Mapping[str, Dataset], path: Path, watch: Watch = unwatched) -> None:
    """Write images/, masks/ and, where there are, types/ and tissues, and `classes.yaml`.

    Nuclei are numbered anew, 1..N in each field. A set without splits lies in `path` itself. The
    folder appears when it is complete. Raises InputError for what is not outlined, OutputError.
    """
    first = _one_set(splits)
    with replacing_directory(path) as root:
        for split, part in splits.items():
            folder = root if split == "all" else root / split
            rows = [_write_field(one, folder, part) for one in watched(part, split, watch)]
            if part.tissues:
                _write_csv(folder / plain.TISSUES, ["image", "tissue"], [r for r in rows if r[1]])
        (root / plain.ABOUT).write_text(_about(first), "utf-8")


def _write_field(sample: Sample, folder: Path, dataset: Dataset) -> list[str]:
    """The name and the tissue of the field that was written."""
    ids, labels = np.unique(sample.instances, return_inverse=True)
    labels = labels.reshape(sample.instances.shape) + (ids[0] != 0)
    if labels.max() > MAX_ID:
        raise InputError(
            f"{sample.name} has more than {MAX_ID:,} nuclei: cut it into smaller fields"
        )
    maps = {"images": cv2.cvtColor(sample.image, cv2.COLOR_RGB2BGR), "masks": np.uint16(labels)}
    if sample.types is not None:
        maps["types"] = sample.types
    for kind, array in maps.items():
        _write_png(folder / kind / f"{sample.name}.png", array)
    return [sample.name, "" if sample.tissue is None else dataset.tissues[sample.tissue]]


def _write_png(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        raise InputError(f"two fields are called {path.stem}: give the images other names")
    _, png = cv2.imencode(".png", array)
    path.write_bytes(png.tobytes())


def _about(dataset: Dataset) -> str:
    facts = {name: getattr(dataset, name) for name in ("name", "mpp", "license", "citation")}
    about = {name: value for name, value in facts.items() if value}
    if dataset.tissues:
        about["tissues"] = list(dataset.tissues)
    if dataset.classes:
        about["classes"] = dict(enumerate(dataset.classes, 1))
    return yaml.safe_dump(about, allow_unicode=True, sort_keys=False)


def write_cellvit(splits: Mapping[str, Dataset], path: Path, watch: Watch = unwatched) -> None:
    """Write folds 0, 1, … as CellViT trains on them, in the order of the splits.

    With what it wants beside the images: `types.csv`, `cell_count.csv`, `dataset_config.yaml` and
    `weight_config.yaml`. What has no tissue, or no types, is of the one tissue or type "Unknown".
    The folder appears when it is complete. Raises InputError for what is not outlined, OutputError.
    """
    first = _one_set(splits)
    classes, tissues = first.classes or (UNKNOWN,), first.tissues or (UNKNOWN,)
    with replacing_directory(path) as root:
        seen: Counter[str] = Counter()
        for fold, (split, part) in enumerate(splits.items()):
            samples = watched(part, split, watch)
            seen.update(_write_fold(root / f"fold{fold}", samples, classes, tissues))
        config = {
            "tissue_types": _ids(tissues, 0),
            "nuclei_types": _ids(("Background", *classes), 0),
        }
        (root / CONFIG).write_text(yaml.safe_dump(config, allow_unicode=True, sort_keys=False))
        (root / "weight_config.yaml").write_text(yaml.safe_dump({"tissue": dict(seen)}))


def _ids(names: tuple[str, ...], first: int) -> dict[str, int]:
    return {name: i for i, name in enumerate(names, first)}


def _write_fold(
    folder: Path, samples: Iterable[Sample], classes: tuple[str, ...], tissues: tuple[str, ...]
) -> list[str]:
    """The tissues of the fields that were written."""
    (folder / "labels").mkdir(parents=True)
    rows = []
    for sample in samples:
        _write_png(folder / "images" / f"{sample.name}.png", sample.image[..., ::-1])
        types = np.uint8(sample.instances > 0) if sample.types is None else sample.types
        maps = {"inst_map": sample.instances, "type_map": np.int32(types)}
        np.save(folder / "labels" / f"{sample.name}.npy", np.array(maps, object), allow_pickle=True)
        counts = np.bincount(_types(sample), minlength=len(classes) + 1)[1:]
        rows.append((f"{sample.name}.png", tissues[sample.tissue or 0], counts.tolist()))
    _write_csv(folder / TISSUES, ["img", "type"], [[image, tissue] for image, tissue, _ in rows])
    counted = [[image, *counts] for image, _, counts in rows]
    _write_csv(folder / "cell_count.csv", ["Image", *classes], counted)
    return [tissue for _, tissue, _ in rows]


def _types(sample: Sample) -> np.ndarray:
    areas, types = nuclei(sample)
    return np.ones(len(areas), np.int64) if sample.types is None else types


def _write_csv(path: Path, head: list[str], rows: list[list]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *rows])


def _one_set(splits: Mapping[str, Dataset]) -> Dataset:
    first = next(iter(splits.values()))
    if not first.outlined:
        raise InputError(
            f"of {first.name} nuclei are only pointed at: there are no outlines to write"
        )
    return first
