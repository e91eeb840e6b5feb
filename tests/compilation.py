"""How programs are compiled where the hurry of most tests would change what is asserted."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def optimised() -> Iterator[None]:
    """With LLVM's optimisations, which users have: also as a decorator of a test."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
