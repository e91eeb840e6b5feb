"""What a worker process does with a field: nuclei of the network's maps, then their scores.

No JAX here, so that a worker starts quickly and leaves the devices alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from cellvit_jax import metrics
from cellvit_jax.cells import Cells, extract_cells
from cellvit_jax.data.dataset import Sample
from cellvit_jax.evaluation.scores import Case, ImageScores, score_image


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """Nuclei of a field: an (H, W) map of their ids, 0 = background, and the class id of each.

    Nuclei without an entry in `types` have none; `tissue` is a name, or None where nobody said.
    """

    instances: np.ndarray
    types: Mapping[int, int] = dataclasses.field(default_factory=dict)
    tissue: str | None = None

    @classmethod
    def of(cls, instances: np.ndarray, cells: Cells, tissue: str | None = None) -> Prediction:
        """Cells whose ids are in a label image."""
        ids, types = (cells.column(name).tolist() for name in ("id", "type"))
        return cls(instances, dict(zip(ids, types, strict=True)), tissue)


@dataclasses.dataclass(frozen=True, eq=False)
class Maps:
    """The network's maps of a field, see `extract_cells`, in which nobody looked for nuclei yet."""

    binary: np.ndarray
    hv: np.ndarray
    types: np.ndarray
    tissue: str | None = None


@dataclasses.dataclass(frozen=True)
class Scoring:
    """How fields are scored: classes by the annotation's ids, the radius of detection in pixels.

    `same` gives the annotation's id for the prediction's; other predicted classes are none.
    """

    class_names: dict[int, str]
    same: dict[int, int]
    radius: float = 12.0

    def translated(self, types: Mapping[int, int]) -> dict[int, int]:
        """Predicted types by nucleus, in the annotation's ids, without those that it lacks."""
        return {i: self.same[t] for i, t in types.items() if t in self.same}


def resolve(found: Prediction | Maps) -> Prediction:
    """The nuclei in maps. As everywhere, an instance without a type is no cell."""
    if isinstance(found, Prediction):
        return found
    instances, cells = extract_cells(found.binary, found.hv, found.types, normalise="fixed")
    instances[instances > len(cells)] = 0
    return Prediction.of(instances, cells, found.tissue)


def types_of(instances: np.ndarray, type_map: np.ndarray) -> dict[int, int]:
    """The type of each instance, by its id: see `metrics.instance_types`."""
    ids = np.unique(instances[instances > 0]).tolist()
    return dict(zip(ids, metrics.instance_types(instances, type_map).tolist(), strict=True))


def score(job: tuple[Sample, Prediction | Maps, str | None], scoring: Scoring) -> ImageScores:
    """The scores of a field, whose pixels are not looked at, of what was found and its tissue."""
    sample, found, tissue = job
    prediction = resolve(found)
    case = Case(
        sample.name,
        sample.instances,
        prediction.instances,
        sample.types,
        scoring.translated(prediction.types),
        tissue,
        prediction.tissue,
    )
    return score_image(case, list(scoring.class_names), scoring.radius)
