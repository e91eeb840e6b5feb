"""Tables of labels for `cellvit-jax probe`, from annotated images and their embeddings.

    python benchmarks/probes.py HE_NUCLEI EMBEDDINGS TABLES

HE_NUCLEI holds collections of images, `COLLECTION/{train,val}/images/NAME.png`, and for CoNSeP
masks and types; EMBEDDINGS is what `cellvit-jax embed --level patches` made of all of them.
collection.csv says of each image which collection it is of; majority.csv, of each patch of CoNSeP,
which class most of its nuclei are of, its patient being the image.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

from cellvit_jax.data.open import open_splits
from cellvit_jax.metrics import instance_types
from cellvit_jax.probes.bags import find, read

FEWEST = 5  # nuclei of a patch that has a majority


def main(data: Path, embeddings: Path, tables: Path) -> None:
    """Write both tables."""
    tables.mkdir(parents=True, exist_ok=True)
    images = sorted(data.glob("*/*/images/*.png"))
    rows = [(path.stem, path.parents[2].name) for path in images]
    write(tables / "collection.csv", ["slide", "label"], rows)
    write(tables / "majority.csv", ["slide", "patch", "label"], majorities(data, embeddings))


def majorities(data: Path, embeddings: Path) -> list[tuple[str, int, str]]:
    """The name of each image of CoNSeP, the number of a patch, its nuclei's most frequent class."""
    files = find(embeddings)
    found = []
    for dataset in open_splits(data / "consep").values():
        for sample in dataset.samples:
            patches = read(files[sample.name])
            for number, (x, y), side in zip(
                patches.ids, patches.centres, patches.sides, strict=True
            ):
                r0, c0 = (round(n + 0.5 - side / 2) for n in (y, x))
                inside = np.s_[r0 : r0 + round(side), c0 : c0 + round(side)]
                kinds = instance_types(sample.instances[inside], sample.types[inside])
                counts = np.bincount(kinds, minlength=1 + len(dataset.classes))[1:]
                if counts.sum() >= FEWEST:
                    name = dataset.classes[counts.argmax()]
                    found.append((sample.name, int(number), name))
    return found


def write(path: Path, head: list[str], rows: list) -> None:
    """A table as CSV."""
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *rows])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
