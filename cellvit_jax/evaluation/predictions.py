"""Predictions that are there already: results of `segment`, or label images of any program.

DIR/NAME/{cells.parquet, instances.tif}           what `cellvit-jax segment` wrote
DIR/NAME.{png,tif}, or DIR/masks/NAME.{png,tif}   ids of nuclei, 0 = background
DIR/types/NAME.{png,tif}                          class ids of the pixels, if there are types
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from cellvit_jax.data import files
from cellvit_jax.data.dataset import Sample
from cellvit_jax.errors import InputError
from cellvit_jax.evaluation.jobs import Prediction, types_of
from cellvit_jax.exports import read_cells

CELLS, INSTANCES = "cells.parquet", "instances.tif"


@dataclasses.dataclass(frozen=True)
class Stored:
    """The predictions in a folder, for fields by their names.

    Type ids are those of the annotation, unless results of `segment` name their own.
    """

    root: Path

    @cached_property
    def results(self) -> bool:
        """Whether they are results of `segment`. Raises InputError where they are nothing."""
        if not self.root.is_dir():
            raise InputError(f"{self.root} is no folder of predictions")
        return any(self.root.glob(f"*/{CELLS}"))

    @cached_property
    def class_names(self) -> dict[int, str] | None:
        """The names that results of `segment` give the classes."""
        if not self.results:
            return None
        first = min(self.root.glob(f"*/{CELLS}"))
        return {i: name for i, (name, _) in read_cells(first).classes.items() if i}

    def __call__(
        self, samples: Iterable[Sample], mpp: float
    ) -> Iterator[tuple[Sample, Prediction]]:
        """Every sample with its prediction. Raises InputError where it has none that fits."""
        read = self._result if self.results else self._labels
        for sample in samples:
            found = read(sample.name)
            if found.instances.shape != sample.instances.shape:
                raise InputError(
                    f"the prediction for {sample.name} is {found.instances.shape}, the annotation "
                    f"{sample.instances.shape}"
                )
            yield sample, found

    def _result(self, name: str) -> Prediction:
        folder = self.root / name
        if not (folder / INSTANCES).is_file():
            raise InputError(f"{folder / INSTANCES} is missing: every field needs its prediction")
        return Prediction.of(files.read_labels(folder / INSTANCES), read_cells(folder / CELLS))

    def _labels(self, name: str) -> Prediction:
        if name not in self._masks:
            raise InputError(f"{self.root} holds no label image {name}.png or {name}.tif")
        instances = files.read_labels(self._masks[name])
        if name not in self._types:
            return Prediction(instances)
        return Prediction(instances, types_of(instances, files.read_labels(self._types[name])))

    @cached_property
    def typed(self) -> bool:
        """Whether anything says of which types the nuclei are."""
        return self.results or bool(self._types)

    @cached_property
    def _masks(self) -> dict[str, Path]:
        inner = self.root / "masks"
        return files.images(inner if inner.is_dir() else self.root)

    @cached_property
    def _types(self) -> dict[str, Path]:
        folder = self.root / "types"
        return files.images(folder) if folder.is_dir() else {}
