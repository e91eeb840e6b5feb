"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cellvit_jax.errors import OutputError


def check_free(target: Path, replaceable: bool) -> None:
    """Raises `OutputError` for a target that is there and must not be replaced."""
    if target.exists() and not replaceable:
        raise OutputError(f"{target} exists: choose another name or say --overwrite")


@contextlib.contextmanager
def replacing_directory(path: Path, *, within: Path | None = None) -> Iterator[Path]:
    """A temporary folder that takes the place of `path` when the block ends without an error.

    It is made beside `path`, or in the folder `within` of the same file system, whose owner removes
    what a killed process left there. Raises `OutputError` where it cannot be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        place = within or path.parent
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=place)).resolve()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    try:
        yield folder
        folder.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        os.replace(folder, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """The names in a folder on the disk, where the operating system can do that."""
    with contextlib.suppress(PermissionError):  # Windows opens no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path for a file or a folder that takes the place of `path` when the block ends well.

    Until then, and after an exception, whatever was at `path` stays as it was. Raises OutputError
    when the operating system refuses (no such folder, no permission, no space).
    """
    path = Path(path)
    # beside the target: only within one file system is a replacement atomic
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        partial.touch()  # what the system refuses is known before any work is done
        partial.unlink()
        yield partial
        if path.is_dir():
            _replace_folder(partial, path)
        else:
            os.replace(partial, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{path} cannot be written: {reason}") from error
    finally:
        _remove(partial)


def _replace_folder(new: Path, path: Path) -> None:
    former = new.with_suffix(".former")
    os.replace(path, former)  # only an empty folder can be replaced at once
    try:
        os.replace(new, path)
    except OSError:
        os.replace(former, path)
        raise
    _remove(former)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def atomic_open(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of `path` when the block ends well.

    As `replacing`, with its errors.
    """
    with replacing(path) as partial, partial.open("xb") as file:
        yield file
