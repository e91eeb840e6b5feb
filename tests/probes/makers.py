"""Embeddings that lie apart by class, in memory and as `embed` writes them."""

from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from cellvit_jax.probes.bags import Bags

DIM = 6


def vectors(labels: np.ndarray, seed: int = 0, apart: float = 4.0) -> np.ndarray:
    """Vectors far from zero and of unequal spread."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(len(labels), DIM)) + apart * np.eye(DIM)[labels]
    return np.float16(found * np.geomspace(4, 0.5, DIM) + 3)


def bags(labels, sizes, groups=None, seed: int = 0, apart: float = 4.0) -> Bags:
    labels, sizes = np.array(labels), np.array(sizes)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    groups = np.arange(len(labels)) if groups is None else np.array(groups)
    names = np.array([f"s{i}" for i in range(len(labels))])
    every = vectors(np.repeat(labels, sizes), seed, apart)
    return Bags(every, starts, labels, groups, names)


def write(folder: Path, name: str, rows: np.ndarray, model: str = "abc") -> None:
    """The results of `embed` for a slide of patches of 256 pixels, four a row."""
    (folder / name).mkdir(parents=True)
    number = np.arange(len(rows))
    flat = pa.array(np.float16(rows).reshape(-1))
    columns = {
        "id": number + 1,
        "x": 127.5 + 256.0 * (number % 4),
        "y": 127.5 + 256.0 * (number // 4),
        "side": np.full(len(rows), 256.0),
        "embedding": pa.FixedSizeListArray.from_arrays(flat, rows.shape[1]),
    }
    pq.write_table(pa.table(columns), folder / name / "embeddings.parquet")
    made_by = {"model": model, "pool": "cls", "tile": None}
    (folder / name / "report.json").write_bytes(orjson.dumps({"arguments": made_by}))


def cohort(folder: Path, slides: int = 12, classes: int = 2, size: int = 8) -> Path:
    """A cohort of slides whose class is their number modulo that of the classes."""
    for i in range(slides):
        write(folder, f"s{i}", vectors(np.full(size, i % classes), seed=i))
    return folder


def table(path: Path, *lines: str, head: str = "slide,label") -> Path:
    path.write_text("\n".join([head, *lines]) + "\n")
    return path
