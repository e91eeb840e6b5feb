"""Tables of cells to write: round nuclei on a grid, every second one of class 1."""

import numpy as np
import pyarrow as pa

from cellvit_jax.cells.table import Cells

SHAPE = ("perimeter", "eccentricity", "solidity")
STAIN = ("haematoxylin_mean", "haematoxylin_sd")
CLASSES = {1: ("Néoplasique 肿瘤", (255, 0, 0)), 2: ("Inflammatory", (34, 221, 77))}
SHAPES = [
    [(5, 0), (2, 2), (0, 5), (2, 8), (5, 10), (8, 8), (10, 5), (8, 2)],
    [(0, 0), (0, 9), (9, 0)],
    [(0, 0), (0, 4), (4, 4), (4, 0), (9, 0), (4, 0)],  # with a spur, as contours of pixels can have
    [(0, 0), (4, 0), (9, 0)],  # one pixel thin
]


def sample(count=12, *, probabilities=True, tokens=0, classes=CLASSES, mpp=0.25, offset=0.0):
    """`count` cells; `offset` shifts them by a fraction of a pixel, as resampling does."""
    rng = np.random.default_rng(0)
    corner = 16.0 * np.stack([np.arange(count) % 10, np.arange(count) // 10], axis=1)
    contours = [np.add(SHAPES[i % 4], corner[i] + offset).tolist() for i in range(count)]
    box = corner.astype(np.int32)
    columns = {
        "id": pa.array(np.arange(1, count + 1), pa.int64()),
        "centroid_x": corner[:, 0] + offset + 4.56789,
        "centroid_y": corner[:, 1] + offset + 4.56789,
        "bbox_r0": box[:, 1],
        "bbox_c0": box[:, 0],
        "bbox_r1": box[:, 1] + 11,
        "bbox_c1": box[:, 0] + 11,
        "area": rng.integers(10, 90, count).astype(float),
        "type": pa.array(1 + np.arange(count) % 2, pa.int32()),
        "type_prob": pa.array(rng.random(count), pa.float32()),
        "contour": pa.array(contours, pa.list_(pa.list_(pa.float32(), 2))),
    }
    if probabilities:
        rows = rng.dirichlet(np.ones(3), count).astype(np.float32)
        columns["probabilities"] = pa.array(list(rows), pa.list_(pa.float32()))
    if tokens:
        values = pa.array(rng.normal(size=count * tokens), pa.float32())
        columns["token"] = pa.FixedSizeListArray.from_arrays(values, tokens)
    return Cells(pa.table(columns), classes, mpp)


def measured(count=12, **options):
    """`sample` with all measurements."""
    cells = sample(count, **options)
    values = np.random.default_rng(1).random((5, count), np.float32)
    return cells.replace_columns(**dict(zip(SHAPE + STAIN, values, strict=True)))


def in_blocks(cells, size):
    """The cells as a stream, after a block without any."""
    yield Cells(cells.table[:0], cells.classes, cells.mpp)
    for start in range(0, len(cells), size):
        yield Cells(cells.table[start : start + size], cells.classes, cells.mpp)


AWKWARD = {1: ('a "b", c/d\n;=', (1, 2, 3)), 2: ("Néo\u2028肿瘤 🧬", (255, 255, 255))}
VARIANTS = {
    "twelve": sample(),
    "none": sample(0, tokens=4),
    "one": sample(1),
    "without-probabilities": sample(probabilities=False),
    "with-tokens": sample(tokens=4),
    "unnamed-classes": sample(classes={}),
    "unknown-resolution": sample(mpp=None),
    "resampled": sample(offset=1 / 3),
    "measured": measured(tokens=3),
    "awkward-names": measured(classes=AWKWARD),
    "in-chunks": Cells(pa.concat_tables([sample().table[:5], sample().table[5:]]), CLASSES, 0.5),
}
