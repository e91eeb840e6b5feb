"""The figures of a run in files: a line of JSON a step, TensorBoard, Weights & Biases."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cellvit_jax.errors import optional

EVERY = 10  # steps between two points of a curve


class Writer(Protocol):
    """Takes figures and pictures of a step."""

    def write(
        self, step: int, values: Mapping[str, float], pictures: Mapping[str, np.ndarray]
    ) -> None:
        """Figures by name; pictures (H,W,3) uint8."""

    def close(self) -> None:
        """Nothing more comes."""


class Json:
    """`log.jsonl`, of which the lines from step `start` on are forgotten: they come again."""

    def __init__(self, path: Path, start: int):
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in map(_row, lines) if line and line["step"] < start]
        path.write_text("".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a")

    def write(
        self, step: int, values: Mapping[str, float], pictures: Mapping[str, np.ndarray]
    ) -> None:
        """A line."""
        row = {"step": step, "time": round(time.time(), 3)} | dict(values)
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _row(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:  # a killed run's last
        return None


def is_point(step: int, values: Mapping[str, float]) -> bool:
    """Whether figures are a point of their curves: some of the steps' are, and all scores."""
    return step % EVERY == 0 or "loss" not in values


class TensorBoard:
    """Curves and overlays in `run/tensorboard/`."""

    def __init__(self, run: Path, start: int):
        writer = optional("tensorboardX", "train").SummaryWriter
        self._writer = writer(str(run / "tensorboard"), purge_step=start or None)

    def write(
        self, step: int, values: Mapping[str, float], pictures: Mapping[str, np.ndarray]
    ) -> None:
        """Points, and pictures if there are any."""
        if is_point(step, values):
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
        for name, picture in pictures.items():
            self._writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class WeightsAndBiases:
    """A W&B run, by the user's own settings, of the folder's name.

    It is resumed by its id, which stays in `run/wandb-id`: other folders have the same name.
    """

    def __init__(self, run: Path, start: int):
        self._wandb = optional("wandb", "wandb")
        kept = run / "wandb-id"
        if not kept.exists():
            kept.write_text(secrets.token_hex(8))
        self._run = self._wandb.init(
            project="cellvit-jax", name=run.name, id=kept.read_text(), resume="allow", dir=str(run)
        )

    def write(
        self, step: int, values: Mapping[str, float], pictures: Mapping[str, np.ndarray]
    ) -> None:
        """Points, and pictures if there are any."""
        shown = {name: self._wandb.Image(picture) for name, picture in pictures.items()}
        if is_point(step, values):
            self._run.log(dict(values) | shown, step=step)

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


WRITERS: dict[str, Callable[[Path, int], Writer]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}


class Logs:
    """All that a run writes to; a context that closes them."""

    def __init__(self, run: Path, start: int, loggers: Sequence[str] = (), *, active: bool = True):
        self._writers: list[Writer] = []
        if active:
            self._writers = [WRITERS[name](run, start) for name in loggers]
            self._writers.append(Json(run / "log.jsonl", start))

    def __enter__(self) -> Logs:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers:
            writer.close()

    def write(
        self,
        step: int,
        values: Mapping[str, float],
        pictures: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """What there is to say of a step."""
        for writer in self._writers:
            writer.write(step, values, pictures or {})
