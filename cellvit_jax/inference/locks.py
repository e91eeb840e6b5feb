"""One process at a time: locks that end with the process that holds them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from cellvit_jax.errors import OutputError


@contextlib.contextmanager
def held(path: Path) -> Iterator[bool]:
    """Holds the lock file `path` during the block, and says whether it could be had.

    The operating system's own lock, so that one left by a killed process does not count, whatever
    the clock says. Works among the nodes of a cluster where its file system shares locks, as NFS
    and Lustre (mounted with `flock`) do. Raises OutputError where there are none.
    """
    import fcntl

    new = not path.parent.exists()
    while True:
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            yield False
            return
        except OSError as error:
            os.close(descriptor)
            raise OutputError(f"{path} cannot be locked: {error.strerror}") from error
        # the one who held it before may have removed it in between
        if _is(path, descriptor):
            break
        os.close(descriptor)
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
            if new:  # a folder that nothing was written into is not left behind
                path.parent.rmdir()
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError(f"cannot write into {path.parent}: {error.strerror}") from error


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
