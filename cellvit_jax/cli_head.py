"""The commands `cellvit-jax head …`: arguments in, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tyro

from cellvit_jax import zoo

app = tyro.extras.SubcommandApp()


@app.command
def train(
    data: Path,
    out: Path,
    model: str = zoo.DEFAULT,
    annotations: Path | None = None,
    mpp: float | None = None,
    hidden_dim: int = 256,
    dropout: float = 0.1,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    epochs: int = 100,
    patience: int = 20,
    class_weights: Literal["balanced", "none"] = "balanced",
    monitor: Literal["auroc", "f1"] = "auroc",
    seed: int = 0,
    cache: Path | None = None,
    uncached: bool = False,
    batch_size: int | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Teach the cells of a network new types, from cells that were pointed at or outlined.

    The network looks at each field once; what it finds is kept, so that further clicks and further
    heads cost seconds. The head goes to `cellvit-jax segment --head`, its report is beside it.

    Args:
        data: annotated images in any layout of docs/data.md, such as a folder of images with
            QuPath's GeoJSON (points or outlines) beside them.
        out: the folder of the head to write, with report.md, report.json and report.png.
        model: the model folder, or the name of a bundled model, that finds the cells.
        annotations: QuPath's GeoJSON, or a folder of it, where it is not beside the images; `data`
            is then the image, or the folder of them.
        mpp: resolution in µm per pixel; wins over what the data says.
        hidden_dim: width of the head.
        dropout: share of the hidden values that is dropped in training.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        epochs: the most there are.
        patience: epochs without a better one after which training ends.
        class_weights: balanced (all classes weigh the same) or none (all cells do).
        monitor: what the best epoch is best at, on the validation cells.
        seed: what the head, the order of the cells and a missing validation part are drawn from.
        cache: where to keep what the network found; by default in the cache folder (see info).
        uncached: keep nothing.
        batch_size: tiles per call of the network; by default 1 on CPU, 8 a device elsewhere.
        overwrite: replace a head that is there already.
        quiet: print nothing but errors and warnings.
    """
    from cellvit_jax.heads import tasks
    from cellvit_jax.heads.fit import Recipe

    recipe = Recipe(
        hidden_dim=hidden_dim,
        drop_rate=dropout,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        epochs=epochs,
        patience=patience,
        balanced=class_weights == "balanced",
        monitor=monitor,
        seed=seed,
    )
    job = tasks.Job(
        data, model, out, annotations, mpp, recipe, cache, uncached, batch_size, overwrite, quiet
    )
    said = tasks.train(job)
    if not quiet:
        print(said)
