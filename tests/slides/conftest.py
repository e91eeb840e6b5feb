"""One small picture that compresses well and differs in every corner."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    """uint8 (48, 80, 3): smooth, so that JPEG changes it little."""
    rows, cols = np.mgrid[0:48, 0:80]
    return np.stack([rows * 5, cols * 3, 255 - rows - cols], axis=-1).astype(np.uint8)
