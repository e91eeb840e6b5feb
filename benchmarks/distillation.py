"""A student taught by a teacher and then trained, beside students that are only trained.

    python benchmarks/distillation.py DATA --out RUNS [--figure docs/images/distillation.png]

DATA is annotated, with the splits train and val, such as CoNSeP; the student has random weights.
With every seed it is distilled for a number of steps, without any annotation, and then trained on
annotations for some more. One baseline is trained for as many steps on annotations, the other for
all steps: the same tiles, augmentation and batch size throughout, and a learning rate that falls to
zero in as many steps at the end of each. A fourth student is distilled alone, with a rate that
falls likewise. All are measured on val as they go. A program that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from pathlib import Path

import jax

from cellvit_jax.pretraining import distil_run
from cellvit_jax.training import run as training_run
from cellvit_jax.training.config import RunConfig, Source, Validation
from cellvit_jax.training.recipes import Recipe, demo

Curve = list[tuple[int, float]]  # steps, bPQ
ALONE = "distilled alone"
ARMS = ("distilled, then trained", "trained as long on annotations", "trained for all steps")
FALLS = 0.3  # of all steps, in which the learning rate does
COLOURS = ("tab:blue", "tab:green", "tab:orange")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is compared: numbers of steps, of which every `every` a score is taken."""

    data: Path
    teacher: str
    student: str
    taught: int
    trained: int
    every: int
    tile: int
    batch_size: int
    peak: float  # learning rate

    def recipe(self, steps: int, seed: int, *, warmup: int = 20, falls: bool = True) -> Recipe:
        """The bundled network's, for fewer steps; whether the rate falls in the last of them."""
        recipe = demo()
        return dataclasses.replace(
            recipe,
            epochs=steps // self.every,
            steps_per_epoch=self.every,
            tile=self.tile,
            batch_size=self.batch_size,
            schedule=dataclasses.replace(
                recipe.schedule,
                peak=self.peak,
                warmup_steps=warmup,
                decay_share=falls * FALLS * (self.taught + self.trained) / steps,
            ),
            calibration_batches=100,
            seed=seed,
        )

    def measured(self, steps: int) -> Validation:
        """The last step is measured in any case."""
        return Validation(every=1 if steps > self.every else 2)

    def supervised(self, out: Path, model: str, recipe: Recipe) -> Curve:
        """The curve of a training."""
        config = RunConfig(
            data=(Source(path=str(self.data)),),
            model=model,
            recipe=recipe,
            validation=self.measured(recipe.steps),
            loggers=(),
        )
        training_run.run(config, out, quiet=True)
        return curve(out)

    def distilled(self, out: Path, seed: int, *, falls: bool) -> Curve:
        """The curve of a distillation."""
        config = distil_run.new_config((str(self.data),), self.teacher, self.student)
        config = dataclasses.replace(
            config,
            recipe=self.recipe(self.taught, seed, falls=falls),
            validation=self.measured(self.taught),
            loggers=(),
        )
        distil_run.run(config, out, quiet=True)
        return curve(out)

    def all(self, runs: Path, seed: int) -> dict[str, Curve]:
        """The curves of the arms."""
        alone = self.distilled(runs / f"{seed}-distilled-alone", seed, falls=True)
        first = self.distilled(runs / f"{seed}-distilled", seed, falls=False)
        then = self.supervised(
            runs / f"{seed}-trained-further",
            str(runs / f"{seed}-distilled/last"),
            self.recipe(self.trained, seed, warmup=0),
        )
        whole = first + [(self.taught + step, score) for step, score in then]
        short, long = (
            self.supervised(
                runs / f"{seed}-trained-{steps}", self.student, self.recipe(steps, seed)
            )
            for steps in (self.trained, self.taught + self.trained)
        )
        return {ALONE: alone} | dict(zip(ARMS, (whole, short, long), strict=True))


def curve(run: Path) -> Curve:
    """Steps and bPQ of a run; of the last step, with its batch statistics measured best."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return sorted({row["step"] + 1: row["bpq"] for row in rows if "bpq" in row}.items())


def mean(curves: list[Curve]) -> Curve:
    """The mean at every step."""
    return [
        (points[0][0], statistics.mean(score for _, score in points))
        for points in zip(*curves, strict=True)
    ]


def table(curves: dict[str, list[Curve]]) -> str:
    """The last scores by seed, and their mean."""
    seeds = range(len(next(iter(curves.values()))))
    head = ["bPQ at the end", *(f"seed {seed}" for seed in seeds), "mean"]
    lines = [f"| {' | '.join(head)} |", "| --- |" + " ---: |" * (len(head) - 1)]
    for arm, found in curves.items():
        last = [one[-1][1] for one in found]
        cells = [f"{score:.4f}" for score in (*last, statistics.mean(last))]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(curves: dict[str, list[Curve]], plan: Plan, path: Path) -> None:
    """Every seed thin, their mean thick."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for arm, colour in zip(ARMS, COLOURS, strict=True):
        found = curves[arm]
        for one in found:
            axes.plot(*zip(*one, strict=True), color=colour, alpha=0.35, linewidth=1)
        axes.plot(*zip(*mean(found), strict=True), "o-", color=colour, linewidth=2, label=arm)
    axes.axvline(plan.taught, color="grey", linestyle=":", linewidth=1)
    axes.annotate(
        "annotations from here on (blue)",
        (plan.taught, 0.4),
        xycoords=("data", "axes fraction"),
        xytext=(4, 0),
        textcoords="offset points",
        color="grey",
        fontsize=8,
    )
    axes.set(xlabel="steps", ylabel="bPQ on val", ylim=(0, None))
    axes.set_title(f"{plan.student}, {len(next(iter(curves.values())))} seeds and their mean")
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run what is left to run, print the table, draw the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--teacher", default="cellvit-tiny-consep")
    parser.add_argument("--student", default="cellvit-nano")
    parser.add_argument("--taught", type=int, default=300)
    parser.add_argument("--trained", type=int, default=300)
    parser.add_argument("--every", type=int, default=150)
    parser.add_argument("--tile", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--peak", type=float, default=3e-3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--figure", type=Path)
    given = vars(parser.parse_args())
    out, seeds, figure = (given.pop(name) for name in ("out", "seeds", "figure"))
    plan = Plan(**given)
    out.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(out / "programs"))
    curves: dict[str, list[Curve]] = {arm: [] for arm in (ALONE, *ARMS)}
    for seed in range(seeds):
        for arm, found in plan.all(out, seed).items():
            curves[arm].append(found)
            print(f"seed {seed}  {arm:<32}", *(f"{n}: {score:.4f}" for n, score in found))
    print(table(curves))
    if figure is not None:
        draw(curves, plan, figure)


if __name__ == "__main__":
    main()
