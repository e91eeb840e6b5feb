"""What a run did: for people as text, for programs as JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

_adding = threading.Lock()


@dataclasses.dataclass
class Report:
    """Figures of one slide's run, gathered by several threads.

    `seconds` are those that threads spent in each stage; several stages run at the same time.
    """

    name: str
    tiles: int = 0
    square_mm: float = 0.0
    what: str = "cells"
    cells: Counter[str] = dataclasses.field(default_factory=Counter)
    seconds: defaultdict[str, float] = dataclasses.field(default_factory=lambda: defaultdict(float))
    wall: float = 0.0
    busy: float = 0.0
    failed: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time of the block to a stage."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            with _adding:
                self.seconds[name] += time.perf_counter() - begun

    def lost(self, x: int, y: int, reason: str) -> None:
        """A tile that could not be read, at a level-0 pixel."""
        with _adding:
            if not any((tile["x"], tile["y"]) == (x, y) for tile in self.failed):
                self.failed.append({"x": x, "y": y, "reason": reason})

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "tiles": self.tiles,
            "square_mm": round(self.square_mm, 4),
            "cells": sum(self.cells.values()),
            "cells_per_class": dict(self.cells),
            "wall_seconds": round(self.wall, 3),
            "stage_seconds": {k: round(v, 3) for k, v in sorted(self.seconds.items())},
            "device_busy": round(self.busy / self.wall, 4) if self.wall else None,
            "peak_rss_bytes": peak_rss(),
            "failed_tiles": self.failed,
            "warnings": self.warnings,
        }

    def __str__(self) -> str:
        classes = ", ".join(f"{n} {name.lower()}" for name, n in self.cells.items())
        kinds = f" ({classes})" if self.what == "cells" else ""
        stages = ", ".join(f"{name} {s:.1f} s" for name, s in sorted(self.seconds.items()))
        lines = [
            f"{self.name}: {sum(self.cells.values())} {self.what}{kinds} in {self.wall:.1f} s",
            f"  {self.tiles} tiles, {self.square_mm:.2f} mm²; {stages}; device busy "
            f"{self.busy / max(self.wall, 1e-9):.0%}; peak memory {peak_rss() / 1e9:.2f} GB",
        ]
        return "\n".join(lines)


def peak_rss() -> int:
    """The most memory that this process ever had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
