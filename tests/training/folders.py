"""Annotated images in a plain folder, small ones."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.training_data.fields import field


def write_folder(root: Path, classes: tuple[str, ...] = ("Round", "Long"), fields: int = 3) -> Path:
    """So many equal fields of 64 pixels; without names of classes they have no types."""
    sample = field(64, 64)
    assert sample.types is not None
    parts = {"images": sample.image, "masks": sample.instances.astype(np.uint16)}
    if classes:
        parts["types"] = sample.types
        names = ", ".join(f"{i}: {name}" for i, name in enumerate(classes, 1))
        root.mkdir(parents=True, exist_ok=True)
        (root / "classes.yaml").write_text(f"classes: {{{names}}}\n")
    for part, pixels in parts.items():
        (root / part).mkdir(parents=True)
        for name in "abcdefgh"[:fields]:
            Image.fromarray(pixels).save(root / part / f"{name}.png")
    return root
