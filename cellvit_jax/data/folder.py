"""All fields of a plain folder at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cellvit_jax.data.dataset import Sample
from cellvit_jax.data.files import MAX_TYPE
from cellvit_jax.data.layouts import plain


def read_folder(root: str | Path, merge: Mapping[int, int] | None = None) -> list[Sample]:
    """All samples under `root`, sorted by name; `merge` maps type ids on disk to class ids.

    `root` holds images/, masks/ and maybe types/ (`layouts.plain`). Raises `InputError` where
    images, masks or types are missing or do not fit together.
    """
    return list(plain.fields(Path(root), MAX_TYPE, merge))
