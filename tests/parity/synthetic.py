"""Checkpoints that are known by their manifest alone.

The recorded networks ran on synthetic weights: every tensor is drawn from a generator that is
seeded by its key, scaled so that activations stay in a natural range.
"""

import json
import math
import zlib

import numpy as np

from tests.shared import DATA


def state_dict(model: str) -> dict[str, np.ndarray]:
    """The tensors of a recorded model under their PyTorch names, in the original order."""
    return {key: draw(key, shape, dtype) for key, (shape, dtype) in manifest(model).items()}


def manifest(model: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """The shapes and types of a recorded model's tensors."""
    rows = json.loads((DATA / "models" / f"{model}.json").read_text())
    return {key: (tuple(shape), dtype) for key, shape, dtype in rows}


def draw(key: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    name = key.rpartition(".")[2]
    if name == "num_batches_tracked":
        return np.full(shape, 1000, dtype)
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    normal = generator.standard_normal(shape, dtype=np.float32)
    return np.asarray(scale(name, normal), dtype)


def scale(name: str, normal: np.ndarray) -> np.ndarray:
    if name == "running_var":
        return np.exp(0.4 * normal)
    if name == "gamma":
        return 0.5 + 0.1 * normal
    if any(part in name for part in ("running_mean", "pos_embed", "token", "rel_pos")):
        return 0.2 * normal
    if normal.ndim < 2:
        return (1.0 if name == "weight" else 0.0) + 0.1 * normal
    return normal * math.sqrt(2.0 / math.prod(normal.shape[1:]))
