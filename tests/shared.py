"""Where the recorded outputs and real images lie, if this checkout has them beside it."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
DATA = Path(__file__).parent / "data"


def shared(path: str) -> Path:
    """`../shared/<path>`; skips the calling test where it is absent."""
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"needs ../shared/{path}, which is not beside this checkout")
    return found
