"""How a run goes, for people who wait."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PAUSE = 60.0  # seconds between two lines where there is no terminal
SHOWN = ("loss", "binary_dice", "hv_mse", "type_dice")


class Bar:
    """A bar with images/s and losses on a terminal, a line a minute elsewhere; on stderr."""

    def __init__(self, total: int, done: int, batch_size: int, *, quiet: bool = False):
        self._console = Console(stderr=True, quiet=quiet)
        columns = (
            TextColumn("training"),
            BarColumn(20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}"),
        )
        self._bar = Progress(
            *columns, console=self._console, disable=quiet or not self._console.is_terminal
        )
        self._task = self._bar.add_task("", total=total, completed=done, values="")
        self._total, self._batch_size = total, batch_size
        self._said = self._since = time.monotonic()
        self._steps = 0

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    @property
    def rate(self) -> float:
        """Images per second so far, but for the pauses."""
        return self._steps * self._batch_size / (time.monotonic() - self._since)

    def step(self, index: int, values: Mapping[str, float]) -> None:
        """A step is done, with these metrics."""
        self._steps += 1
        losses = "  ".join(f"{name} {values[name]:.3f}" for name in SHOWN if name in values)
        text = f"{self.rate:.3g} images/s  {losses}"
        self._bar.update(self._task, completed=index + 1, values=text)
        if not self._console.is_terminal and time.monotonic() - self._said >= PAUSE:
            self._said = time.monotonic()
            self.say(f"training: {index + 1} of {self._total}  {text}")

    def pause(self, seconds: float) -> None:
        """So long there were no steps."""
        self._since += seconds

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
