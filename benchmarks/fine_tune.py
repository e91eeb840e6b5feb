"""What a network gains from cells that were corrected, on fields that it never learnt from.

    python benchmarks/fine_tune.py --data HE_NUCLEI/monuseg --out WORK [--fields 10] [--epochs 4]
    python benchmarks/fine_tune.py --data CELLVITPP_EXAMPLES/Example-Segmentation --out WORK \
        --learnt fold_0_train --measured fold_0_val

The commands of docs/training.md, "Fine-tune on your own annotations", in a row. Annotated fields
of one split stand for what a person corrected in QuPath: the outlines are the annotated ones, the
types those that the network gave. The other split is only measured on, before and after.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from scipy import ndimage

import cellvit_jax as cj
from cellvit_jax import exports
from cellvit_jax.cells import Cells
from cellvit_jax.cells.measure import measure, numbered
from cellvit_jax.cells.planes import Planes
from cellvit_jax.data import Sample, open_dataset
from cellvit_jax.evaluation.network import segment_sample
from cellvit_jax.inference.predictor import Predictor
from cellvit_jax.inference.segment import Segmentation, predictor_of

MODEL = "cellvit-tiny-consep"


def main(
    data: Path,
    out: Path,
    learnt: str = "train",
    measured: str = "val",
    fields: int = 10,
    side: int = 1000,
    epochs: int = 4,
    assign: tuple[str, ...] = (),
) -> None:
    """Print what every command prints; `assign` are further values of the config."""
    drawn = open_dataset(data, learnt).samples
    predictor = predictor_of(cj.load(MODEL))
    for index in np.linspace(0, len(drawn) - 1, min(fields, len(drawn))).astype(int):
        export(cut(drawn[index], side), predictor, out)
    classes = [name for name, _ in predictor.card.cell_classes.values()]
    mine, run = out / "mine", out / "run"
    call("data", "from-qupath", out / "images", out / "corrected", mine, "--classes", *classes)
    words = [word for one in (f"recipe.epochs={epochs}", *assign) for word in ("--set", one)]
    call("train", "--data", mine, "--model", MODEL, "--out", run, *words)
    told = ("--split", measured, "--out", out / "report")
    call("evaluate", "--data", data, *told, "--model", MODEL, run / "best")


def export(sample: Sample, predictor: Predictor, out: Path) -> None:
    """An image, and its cells as QuPath would export them once they are right."""
    for folder in (out / "images", out / "corrected"):
        folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sample.image).save(out / "images" / f"{sample.name}.png")
    found = segment_sample(sample, predictor)
    instances = in_raster_order(sample.instances)
    types = np.where(instances > 0, nearest_types(found), 0).astype(np.uint8)
    planes = Planes(np.uint8(instances > 0), np.zeros(instances.shape, np.float32), types)
    cells = Cells(numbered(measure(instances, planes)[0]), found.cells.classes, found.mpp)
    exports.write(cells, out / "corrected" / f"{sample.name}.geojson")


def nearest_types(found: Segmentation) -> np.ndarray:
    """The type of the found cell that is nearest to each pixel."""
    by_id = np.zeros(int(found.instances.max()) + 1, np.uint8)
    by_id[found.cells.column("id")] = found.cells.column("type")
    types = by_id[found.instances]
    places = ndimage.distance_transform_edt(types == 0, return_distances=False, return_indices=True)
    return types[tuple(places)]


def in_raster_order(instances: np.ndarray) -> np.ndarray:
    """The same nuclei, numbered by their first pixels."""
    _, first, inverse = np.unique(instances, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(np.where(instances.ravel()[first] == 0, -1, first)))
    return order[inverse].reshape(instances.shape).astype(np.int32)


def cut(sample: Sample, side: int) -> Sample:
    """The upper left corner."""
    corner = np.s_[:side, :side]
    types = None if sample.types is None else sample.types[corner]
    return Sample(sample.name, sample.image[corner], sample.instances[corner], types)


def call(*words: object) -> None:
    """Run `cellvit-jax`; what it is asked for and what it says go to the terminal."""
    print("$ cellvit-jax", shlex.join(map(str, words)), flush=True)
    code = "from cellvit_jax import cli; cli.main()"
    subprocess.run([sys.executable, "-c", code, *map(str, words)], check=True)


if __name__ == "__main__":
    tyro.cli(main)
