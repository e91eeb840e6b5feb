"""Where this package keeps what it may throw away: compiled programs."""

from __future__ import annotations

import os
from pathlib import Path

import jax

VARIABLE = "CELLVIT_JAX_CACHE"


def folder() -> Path:
    """`$CELLVIT_JAX_CACHE`, else `$XDG_CACHE_HOME/cellvit-jax`, else `~/.cache/cellvit-jax`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(VARIABLE) or Path(base) / "cellvit-jax")


def keep_compiled_programs() -> None:
    """Store compiled programs in `folder()/xla`, unless JAX was already told where or not to."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(folder() / "xla"))
        # by default those alone that take a second, which most networks are on either side of
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
