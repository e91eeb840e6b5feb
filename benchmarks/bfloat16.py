"""What computing in bfloat16 changes: the cells that are found, and the maps themselves.

    PYTHONPATH=. python benchmarks/bfloat16.py cells [--data HE_NUCLEI]
    PYTHONPATH=. python benchmarks/bfloat16.py maps [--models cellvit-256 cellvit-sam-b]

`cells` runs the bundled network on annotated fields, `maps` synthetic weights on an image of 256².
Baseline is float32 in the same run. A cell agrees where its counterpart's IoU is over 0.5; a map's
error is the norm of the difference over the norm of the map.
"""

from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx

from cellvit_convert.content import Content
from cellvit_convert.pytorch_to_orbax import translate
from cellvit_jax import caches, checkpoint, metrics, zoo
from cellvit_jax.data import Sample, read_folder
from cellvit_jax.evaluation.network import segment_sample
from cellvit_jax.inference.predictor import Predictor
from cellvit_jax.inference.segment import predictor_of
from tests.parity.synthetic import DATA, state_dict

SHARED = Path(__file__).resolve().parents[2] / "shared"
DTYPES = (jnp.float32, jnp.bfloat16)
app = tyro.extras.SubcommandApp()


@app.command
def cells(data: Path = SHARED / "data" / "he-nuclei") -> None:
    """Print detection F1 of bfloat16's cells against float32's, at IoU 0.5, for every field."""
    predictors = [predictor_of(checkpoint.load(zoo.DEFAULT, dtype=dtype)) for dtype in DTYPES]
    print("| field | cells | F1 at IoU 0.5 | same type |\n| --- | ---: | ---: | ---: |")
    for collection in ("consep", "monuseg", "bbbc038"):
        rows = []
        for sample in read_folder(data / collection / "val"):
            rows.append(compare(sample, predictors))
            print(f"| {sample.name} | {rows[-1][0]} | {rows[-1][1]:.4f} | {rows[-1][2]:.4f} |")
        count, f1, same = np.sum(rows, axis=0)[0], *np.mean(rows, axis=0)[1:]
        print(f"| **{collection}/val, mean** | {count:.0f} | {f1:.4f} | {same:.4f} |", flush=True)


def compare(sample: Sample, predictors: list[Predictor]) -> tuple[int, float, float]:
    """Cells in float32, F1 of those in bfloat16, share of the matched ones that are of one type."""
    exact, rough = (segment_sample(sample, predictor) for predictor in predictors)
    quality = metrics.panoptic_quality(exact.instances, rough.instances)
    centres = (exact.cells.column(f"centroid_{axis}").round().astype(int) for axis in "yx")
    ids = rough.instances[tuple(centres)]
    types = np.concatenate([[0], rough.cells.column("type")])[ids]
    same = (types == exact.cells.column("type"))[ids > 0].mean()
    return len(exact.cells), quality["dq"], float(same)


@app.command
def maps(models: tuple[str, ...] = ("cellvit-256", "cellvit-sam-b")) -> None:
    """Print the relative error of every map of converted networks on a real image of 256²."""
    pixels = cv2.imread(str(DATA / "models" / "he-256.png"))[..., ::-1].astype(np.float32)
    images = (pixels[None] / 255 - 0.5) / 0.5
    print("| model | map | relative error |\n| --- | --- | ---: |")
    for model in models:
        exact, rough = (outputs(model, images, dtype) for dtype in DTYPES)
        for name, expected in exact.items():
            error = np.linalg.norm(rough[name] - expected) / np.linalg.norm(expected)
            print(f"| {model} | {name} | {error:.2e} |", flush=True)


def outputs(name: str, images: np.ndarray, dtype: jnp.dtype) -> dict[str, np.ndarray]:
    """The maps of a recorded model on its synthetic weights."""
    result = translate(Content(state_dict(name)))
    model = checkpoint.network(result.config, dtype=dtype)
    nnx.update(model, result.weights)
    model = nnx.view(model, deterministic=True, use_running_average=True)
    run = jax.jit(lambda model, x: model(x, tokens=True))
    with jax.default_matmul_precision("highest"):
        return {key: np.asarray(value, np.float64) for key, value in run(model, images).items()}


if __name__ == "__main__":
    caches.keep_compiled_programs()
    app.cli()
