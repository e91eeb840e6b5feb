"""State dicts of the recorded models with zeros for weights: names and shapes are what counts."""

import json

import numpy as np

from tests.shared import DATA

MODELS = ("cellvit-256", "cellvit-256-shared", "cellvit-256-regression", "cellvit-generic-d192")
GENERIC = {"model.num_heads": 3, "model.extract_layers": [1, 3, 5, 6]}


def zeros(model: str) -> dict[str, np.ndarray]:
    rows = json.loads((DATA / "models" / f"{model}.json").read_text())
    return {key: np.zeros(shape, dtype) for key, shape, dtype in rows}
