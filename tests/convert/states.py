"""State dicts of the recorded models with zeros for weights: names and shapes are what counts."""

import numpy as np

from tests.parity.synthetic import manifest

MODELS = (
    "cellvit-256",
    "cellvit-256-shared",
    "cellvit-256-regression",
    "cellvit-generic-d192",
    "cellvit-sam-b",
    "cellvit-sam-l",
    "cellvit-sam-h",
    "cellvit-uni",
    "cellvit-virchow",
    "cellvit-virchow2",
)
GENERIC = {"model.num_heads": 3, "model.extract_layers": [1, 3, 5, 6]}


def zeros(model: str) -> dict[str, np.ndarray]:
    return {key: np.zeros(shape, dtype) for key, (shape, dtype) in manifest(model).items()}
