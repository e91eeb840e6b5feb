"""What pretraining on tiles is good for: a linear probe, and bPQ after fine-tuning.

    python benchmarks/pretraining.py --data CONSEP --tiles CONSEP MONUSEG SLIDE … --out FOLDER \
        [--figure docs/images/pretraining.png]

Three arms for every seed: random weights, SimCLR and DINO on the same tiles for the same number of
steps. The probe is a logistic regression on mean tokens that tells the majority type of the nuclei
in a tile of CoNSeP: inflammatory, epithelial or spindle-shaped; it learns from tiles of the split
train and is measured on those of val, as is the network that is fine-tuned. Colours alone, means
and deviations of RGB, are the baseline of the probe. What was done is kept in FOLDER: a program
that was stopped goes on.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from flax import nnx
from scipy.optimize import minimize

from cellvit_jax import caches, checkpoint
from cellvit_jax.card import ModelCard
from cellvit_jax.data.dataset import Dataset
from cellvit_jax.data.open import open_splits
from cellvit_jax.inference.patches import PatchPredictor
from cellvit_jax.models import Encoder, EncoderConfig
from cellvit_jax.pretraining import tile_run
from cellvit_jax.pretraining.methods import new_config
from cellvit_jax.training import run as training
from cellvit_jax.training.config import Source

ARMS = ("random", "simclr", "dino")
GROUPS = ("Inflammatory", "Epithelial", "Spindle-shaped")  # "Other" are too few
TILE, FEWEST = 128, 4  # of the probe: pixels a side, nuclei in a tile
SETTINGS: dict[str, list[str]] = {
    "simclr": ["method.views.side=128", "method.views.smallest=0.4", "method.views.largest=0.75"],
    "dino": [
        "method.whole.side=128",
        "method.whole.smallest=0.5",
        "method.whole.largest=0.75",
        "method.parts.side=64",
        "method.parts.count=2",
        "method.parts.smallest=0.2",
        "method.parts.largest=0.4",
        "method.pool=mean",
        "method.prototypes=1024",
        "method.bottleneck=64",
        "method.rest_steps=20",
        "method.warmup_steps=50",
        "recipe.ema_decay=0.99",
        "recipe.drop_path_rate=0",
    ],
}


def main(
    data: Path,
    tiles: tuple[str, ...],
    out: Path,
    steps: int = 120,
    batch: int = 32,
    fine_steps: int = 200,
    seeds: int = 3,
    figure: Path | None = None,
) -> None:
    """Run what has not been run, print the table, and draw it."""
    caches.keep_compiled_programs()
    splits = open_splits(data)
    parts = [labelled(splits[name]) for name in ("train", "val")]
    kept = out / "results.json"
    results = json.loads(kept.read_text()) if kept.exists() else {"colour": probe(parts, colours)}
    for seed in range(seeds):
        for arm in ARMS:
            name = f"{arm}-{seed}"
            row = results.setdefault(name, {})
            encoder = out / name / "last"
            if "probe" not in row:
                pretrained(arm, tiles, out / name, steps, batch, seed)
                row["probe"] = probe(parts, tokens(encoder))
                keep(kept, results)
            if "bpq" not in row:
                row["bpq"] = fine_tuned(data, encoder, out / f"{name}-fine", fine_steps, seed)
                keep(kept, results)
    print(table(results, seeds))
    if figure:
        draw(results, seeds, figure)


def keep(path: Path, results: dict[str, Any]) -> None:
    """Write what there is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


def pretrained(
    arm: str, tiles: tuple[str, ...], run: Path, steps: int, batch: int, seed: int
) -> None:
    """Make the encoder `run/last`."""
    if arm == "random":
        config = EncoderConfig.tiny()
        model = Encoder(config, rngs=nnx.Rngs(seed))
        weights = nnx.state(model, checkpoint.WEIGHTS)
        checkpoint.save(run / "last", weights, config, ModelCard((), tile=256))
        return
    sources = tuple(Source(path=path) for path in tiles)
    config = new_config(arm, data=sources, encoder="vit-tiny", loggers=())
    common = {
        "epochs": 1,
        "steps_per_epoch": steps,
        "batch_size": batch,
        "seed": seed,
        "schedule.peak": 1e-3,
        "schedule.warmup_steps": steps // 10,
        "save_every": 50,
    }
    settings = [f"recipe.{name}={value}" for name, value in common.items()]
    settings += ["method.hidden=256", *SETTINGS[arm]]
    tile_run.run(config.changed(settings), run, quiet=True)


def fine_tuned(data: Path, encoder: Path, run: Path, steps: int, seed: int) -> float:
    """bPQ on the split val of a CellViT over an encoder, all of it trained for some steps."""
    settings = {
        "recipe.epochs": 1,
        "recipe.steps_per_epoch": steps,
        "recipe.batch_size": 8,
        "recipe.tile": 128,
        "recipe.schedule.peak": 3e-3,
        "recipe.schedule.warmup_steps": steps // 10,
        "recipe.calibration_batches": 20,
        "recipe.seed": seed,
        "validation.every": 1000,
        "loggers": [],
    }
    assignments = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    config = training.new_config([str(data)], str(encoder), "demo", assignments)
    best = training.run(config, run, quiet=True).best
    assert best is not None
    return best


def labelled(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Tiles (N,T,T,3) of annotated fields, and the majority group (N,) of the nuclei in each."""
    groups = np.array([-1, *(GROUPS.index(c) if c in GROUPS else -1 for c in data.classes)])
    images, labels = [], []
    for sample in data.samples:
        for row in range(0, len(sample.image) - TILE + 1, TILE // 2):
            for col in range(0, sample.image.shape[1] - TILE + 1, TILE // 2):
                at = slice(row, row + TILE), slice(col, col + TILE)
                _, first = np.unique(sample.instances[at], return_index=True)
                found = groups[sample.types[at].ravel()[first]]
                counts = np.bincount(found[found >= 0], minlength=len(GROUPS))
                if counts.sum() >= FEWEST:
                    images.append(sample.image[at])
                    labels.append(counts.argmax())
    return np.stack(images), np.array(labels)


def colours(images: np.ndarray) -> np.ndarray:
    """Means and deviations of red, green and blue (N,6)."""
    return np.concatenate([images.mean((1, 2)), images.std((1, 2))], 1)


def tokens(encoder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The mean tokens (N,D) of tiles that an encoder gives."""
    run = PatchPredictor(checkpoint.load(encoder), "mean", TILE, batch_size=32)
    return lambda images: np.stack([one["vector"] for one in run(images)])


def probe(parts: list[tuple[np.ndarray, np.ndarray]], features: Callable) -> float:
    """Balanced accuracy on the second part of a logistic regression that the first has taught."""
    (x, y), (x_val, y_val) = ((features(images), labels) for images, labels in parts)
    mean, std = x.mean(0), x.std(0) + 1e-6
    x, x_val = ((np.insert((a - mean) / std, 0, 1, axis=1)) for a in (x, x_val))
    true, weights = np.eye(len(GROUPS))[y], 1 / np.bincount(y)[y]

    @jax.jit
    def loss(flat):
        w = flat.reshape(-1, len(GROUPS))
        logs = jax.nn.log_softmax(x @ w)
        return -(weights[:, None] * true * logs).sum() / len(GROUPS) + 1e-2 * (w[1:] ** 2).sum()

    slope = jax.jit(jax.value_and_grad(loss))
    fitted = minimize(
        lambda w: tuple(np.asarray(v, np.float64) for v in slope(w)),
        np.zeros(x.shape[1] * len(GROUPS)),
        jac=True,
        method="L-BFGS-B",
    )
    right = (x_val @ fitted.x.reshape(-1, len(GROUPS))).argmax(1) == y_val
    return float(np.mean([right[y_val == group].mean() for group in np.unique(y_val)]))


def table(results: dict[str, Any], seeds: int) -> str:
    """Means and every seed, as Markdown."""
    lines = ["| encoder | linear probe | bPQ after fine-tuning |", "| --- | ---: | ---: |"]
    lines.append(f"| colours alone | {results['colour']:.3f} | – |")
    for arm in ARMS:
        cells = [arm]
        for figure in ("probe", "bpq"):
            values = [results[f"{arm}-{seed}"][figure] for seed in range(seeds)]
            each = ", ".join(f"{value:.3f}" for value in values)
            cells.append(f"{statistics.mean(values):.3f} ({each})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(results: dict[str, Any], seeds: int, path: Path) -> None:
    """Every seed as a dot, their mean as a line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
    titles = {"probe": "linear probe, balanced accuracy", "bpq": "bPQ after fine-tuning"}
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        for place, arm in enumerate(ARMS):
            values = [results[f"{arm}-{seed}"][name] for seed in range(seeds)]
            axis.plot([place] * seeds, values, "o", color=f"C{place}", alpha=0.7)
            axis.hlines(statistics.mean(values), place - 0.25, place + 0.25, color=f"C{place}")
        axis.set(title=title, xticks=range(len(ARMS)), xticklabels=ARMS, xlim=(-0.5, 2.5))
    axes[0].axhline(results["colour"], color="grey", linestyle=":", label="colours alone")
    axes[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    plt.savefig(path, dpi=150)


if __name__ == "__main__":
    tyro.cli(main)
