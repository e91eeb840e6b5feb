"""What a trained classifier is worth: for people as Markdown and a picture, for programs as JSON.

A report has a `heading`, a `text`, the names of the `classes`, and `scores`: a part for each title,
as `scores.scores` gives it, perhaps with the `intervals` of its figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from cellvit_jax.errors import MissingExtraError
from cellvit_jax.files import atomic_open

MARKDOWN, JSON, FIGURE = "report.md", "report.json", "report.png"


def write(report: dict[str, Any], folder: Path) -> None:
    """The files of a report into an existing folder. Raises OutputError, MissingExtraError."""
    figure = draw(report)
    with atomic_open(folder / JSON) as file:
        file.write(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    with atomic_open(folder / MARKDOWN) as file:
        file.write(markdown(report).encode())
    with atomic_open(folder / FIGURE) as file:
        figure.savefig(file, format="png", dpi=120)


def markdown(report: dict[str, Any]) -> str:
    """The report as a page of text and tables."""
    parts = [
        f"# {report['heading']}",
        report["text"],
        *(_section(title, part, report["classes"]) for title, part in report["scores"].items()),
        "AUROC, AP (average precision) and F1 are of each class against all others; ECE is the "
        "expected calibration error. For research only, not for diagnosis.",
    ]
    return "\n\n".join(parts) + "\n"


def summary(report: dict[str, Any]) -> str:
    """A line for each part that was scored."""
    return "\n".join(
        f"{title}: {part['count']} {part['what']}, accuracy {_sure(part, 'accuracy')}, "
        f"AUROC {_sure(part, 'auroc')}, F1 {_sure(part, 'f1')}"
        for title, part in report["scores"].items()
    )


def _section(title: str, part: dict[str, Any], classes: Sequence[str]) -> str:
    total = [part[key] for key in ("auroc", "ap", "f1")]
    rows = [("all", part["count"], *total)]
    columns = (part["per_class"][key] for key in ("count", "auroc", "ap", "f1"))
    rows += zip(classes, *columns, strict=True)
    lines = [
        f"## {title}",
        "",
        f"Accuracy {_sure(part, 'accuracy')}, balanced accuracy "
        f"{_sure(part, 'balanced_accuracy')}, AUROC {_sure(part, 'auroc')}, F1 "
        f"{_sure(part, 'f1')}, ECE {_figure(part['calibration']['ece'])}. The largest class, said "
        f"always, would be right in {_figure(part['majority'])}.",
        "",
        f"| class | {part['what']} | AUROC | AP | F1 |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, count, *figures in rows:
        lines.append(f"| {name} | {count} | " + " | ".join(map(_figure, figures)) + " |")
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def _sure(part: dict[str, Any], name: str) -> str:
    """A figure, with its interval in brackets where there is one."""
    interval = part.get("intervals", {}).get(name)
    between = f" ({_figure(interval[0])}–{_figure(interval[1])})" if interval else ""
    return _figure(part[name]) + between


def draw(report: dict[str, Any]) -> Any:
    """Confusion matrix and reliability of the first scored part, as a matplotlib figure."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "train") from error
    title, part = next(iter(report["scores"].items()))
    figure = Figure(figsize=(11, 5), layout="constrained")
    figure.suptitle(f"{report['heading']}\n{title}, {part['count']} {part['what']}")
    matrix, reliability = figure.subplots(1, 2)
    _draw_confusion(matrix, np.array(part["confusion"]), report["classes"])
    _draw_reliability(reliability, part["calibration"])
    return figure


def _draw_confusion(axes: Any, counts: np.ndarray, classes: Sequence[str]) -> None:
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{count}", ha="center", va="center", color=color)
    axes.set_xticks(range(len(classes)), classes, rotation=30, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="annotated", title="Confusion (shade: share of the row)")


def _draw_reliability(axes: Any, calibration: dict[str, Any]) -> None:
    bins = calibration["bins"]
    sizes = [20 + 200 * b["count"] / max(1, sum(b["count"] for b in bins)) for b in bins]
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    axes.scatter([b["confidence"] for b in bins], [b["accuracy"] for b in bins], s=sizes)
    ece = _figure(calibration["ece"])
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy", aspect="equal")
    axes.set_title(f"Reliability (ECE {ece})")
