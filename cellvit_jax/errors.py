"""What can go wrong, as exceptions whose text is a sentence a person can act on.

The command line prints that sentence on stderr and exits with 2.
"""

import difflib
import importlib
import sys
import warnings
from collections.abc import Iterable
from typing import Any


class CellViTError(Exception):
    """Base of all errors that this package raises on purpose."""


class InputError(CellViTError):
    """An image, folder or argument that cannot be used."""


class OutputError(CellViTError):
    """A result that cannot be written where it was asked for."""


class CheckpointError(CellViTError):
    """A checkpoint that is missing, incomplete, or does not fit the model."""


class FetchError(CellViTError):
    """A file that cannot be downloaded, or is not what it should be."""


class UnsafeFileError(CellViTError):
    """A pickle that asks for more than tensors, containers and plain values."""


class MissingExtraError(CellViTError):
    """An optional dependency is not installed; the text names the extra."""

    def __init__(self, package: str, extra: str):
        super().__init__(f"{package} is not installed: pip install 'cellvit-jax[{extra}]'")


def optional(module: str, extra: str) -> Any:
    """A module that comes with an extra. Raises `MissingExtraError`, which names the extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(module, extra) from error


def hint(name: str, known: Iterable[str]) -> str:
    """ " (did you mean …?)", of the known name that is nearest; "" where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def show_warnings(command: str) -> None:
    """From here on warnings are a sentence of a command on stderr, without place and category."""

    def show(message, category, filename, lineno, file=None, line=None) -> None:
        print(f"{command}: {printable(str(message))}", file=sys.stderr)

    warnings.showwarning = show


def printable(text: str) -> str:
    """The text without what could steer a terminal: names come from files that anybody made."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
