"""The states that a run goes on from, in `RUN/state/`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from orbax.checkpoint import v1 as ocp

from cellvit_jax import hosts
from cellvit_jax.errors import CheckpointError
from cellvit_jax.training.state import Layout, TrainState


@dataclasses.dataclass(frozen=True)
class Standing:
    """What a run knows beside its state: the best score so far, and how often it was not beaten."""

    best: float | None = None
    waited: int = 0

    def after(self, score: float) -> Standing:
        """When a score came. Only a higher one is better; nan never is."""
        if self.best is None or score > self.best:
            return Standing(score, 0)
        return Standing(self.best, self.waited + 1)


class States:
    """Saves in the background, each whole or not at all, and keeps the last few; a context."""

    def __init__(self, folder: Path, keep: int):
        kept = ocp.training.preservation_policies.LatestN(keep)
        self._files = ocp.training.Checkpointer(
            folder, preservation_policy=kept, cleanup_tmp_directories=True
        )
        latest = self._files.latest
        # every process counts by itself from here on: what a file system lists may lag behind
        self._last: int | None = hosts.told(None if latest is None else latest.step)[0]

    def __enter__(self) -> States:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    @property
    def step(self) -> int:
        """Steps that the last state has made; 0 without one."""
        return self._last or 0

    def load(self, layout: Layout) -> tuple[TrainState, Standing]:
        """The last state, as the layout wants it. Raises `CheckpointError`."""
        try:
            state = self._files.load(self.step, layout.abstract)
            values: Any = self._files.metadata(self.step).custom_metadata
        except Exception as error:  # Orbax raises many kinds for damaged folders
            raise CheckpointError(
                f"the state of step {self.step} in {self._files.directory} cannot be read "
                f"({error}): remove its folder to go on from the one before"
            ) from error
        return state, Standing(**(values or {}))

    def save(self, step: int, state: TrainState, standing: Standing) -> None:
        """Begin to save; the state may be donated when this returns."""
        if step != self._last:
            values = dataclasses.asdict(standing)
            self._files.save_async(step, state, force=True, custom_metadata=values)
            self._last = step
