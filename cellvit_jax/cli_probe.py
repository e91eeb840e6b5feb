"""The commands `cellvit-jax probe …`: arguments in, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

if TYPE_CHECKING:
    from cellvit_jax.probes.tasks import Recipe

app = tyro.extras.SubcommandApp()

Weights = Literal["balanced", "none"]


@app.command
def linear(
    embeddings: Path,
    labels: Path,
    out: Path,
    l2: float | None = None,
    class_weights: Weights = "balanced",
    folds: int = 5,
    seed: int = 0,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """A linear probe: logistic regression on patches, averaged over each slide.

    Args:
        embeddings: the results of `cellvit-jax embed --level patches`.
        labels: a CSV with a head: slide,label and perhaps patch, patient, split.
        out: the folder of the probe to write, with its report and predictions.
        l2: weight of half the squared norm; by default chosen on slides that are held out.
        class_weights: balanced (all classes weigh the same) or none (all slides do).
        folds: of the cross-validation by patients, where the table has no split.
        seed: what folds and slides that are held out are drawn from.
        overwrite: replace what is there already.
        quiet: print nothing but errors and warnings.
    """
    from cellvit_jax.probes.linear import Recipe

    recipe = Recipe(l2, class_weights == "balanced", seed)
    _run(embeddings, labels, out, recipe, folds, overwrite, quiet)


@app.command
def knn(
    embeddings: Path,
    labels: Path,
    out: Path,
    neighbours: int | None = None,
    temperature: float = 0.07,
    folds: int = 5,
    seed: int = 0,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Nearest neighbours by the cosine: what vectors tell without training. A report alone.

    Args:
        embeddings: the results of `cellvit-jax embed --level patches`.
        labels: a CSV with a head: slide,label and perhaps patch, patient, split.
        out: the folder of the report to write.
        neighbours: how many vote; by default chosen on slides that are held out.
        temperature: a neighbour votes with the weight exp(cosine / temperature).
        folds: of the cross-validation by patients, where the table has no split.
        seed: what folds and slides that are held out are drawn from.
        overwrite: replace what is there already.
        quiet: print nothing but errors and warnings.
    """
    from cellvit_jax.probes.knn import Recipe

    _run(embeddings, labels, out, Recipe(neighbours, temperature, seed), folds, overwrite, quiet)


@app.command
def abmil(
    embeddings: Path,
    labels: Path,
    out: Path,
    hidden_dim: int = 128,
    attention_dim: int = 64,
    dropout: float = 0.25,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    epochs: int = 100,
    patience: int = 20,
    batch_size: int = 8,
    bag_size: int = 1024,
    class_weights: Weights = "balanced",
    folds: int = 5,
    seed: int = 0,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """A classifier of slides by gated attention over their patches (ABMIL).

    Args:
        embeddings: the results of `cellvit-jax embed --level patches`.
        labels: a CSV with a head: slide,label and perhaps patient, split.
        out: the folder of the classifier to write, with its report and predictions.
        hidden_dim: width of what is pooled.
        attention_dim: width of the attention.
        dropout: share of the hidden values that is dropped in training.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        epochs: the most there are.
        patience: epochs without a better one after which training ends.
        batch_size: slides a step.
        bag_size: the most patches of a slide that an epoch shows, drawn anew each time.
        class_weights: balanced (all classes weigh the same) or none (all slides do).
        folds: of the cross-validation by patients, where the table has no split.
        seed: what folds, held-out slides, weights and orders are drawn from.
        overwrite: replace what is there already.
        quiet: print nothing but errors and warnings.
    """
    from cellvit_jax.probes.abmil import Recipe

    recipe = Recipe(
        hidden_dim,
        attention_dim,
        dropout,
        learning_rate,
        weight_decay,
        epochs,
        patience,
        batch_size,
        bag_size,
        class_weights == "balanced",
        seed,
    )
    _run(embeddings, labels, out, recipe, folds, overwrite, quiet)


@app.command
def predict(
    probe: Path,
    embeddings: Path,
    out: Path,
    slides: tuple[Path, ...] = (),
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Classify other slides with a trained probe, and map what it looked at or saw.

    Args:
        probe: what `probe linear` or `probe abmil` wrote.
        embeddings: the results of `cellvit-jax embed`, made as those that it was trained on.
        out: the folder to write: predictions.csv, and a table and a heat map of each slide.
        slides: the slides, images or folders of them, to draw the heat maps on.
        overwrite: replace what is there already.
        quiet: print nothing but errors and warnings.
    """
    from cellvit_jax.probes import apply

    said = apply.run(apply.Job(probe, embeddings, out, slides, overwrite, quiet))
    if not quiet:
        print(said)


def _run(
    embeddings: Path,
    labels: Path,
    out: Path,
    recipe: Recipe,
    folds: int,
    overwrite: bool,
    quiet: bool,
) -> None:
    from cellvit_jax.probes import tasks

    said = tasks.run(tasks.Job(embeddings, labels, out, recipe, folds, overwrite, quiet))
    if not quiet:
        print(said)
