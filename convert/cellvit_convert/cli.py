"""`cellvit-convert SRC DST`: argument parsing, nothing else."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cellvit_jax import __version__
from cellvit_jax.errors import CellViTError

if TYPE_CHECKING:
    from cellvit_convert.pytorch_to_orbax import Conversion

DTYPES = ("float32", "bfloat16", "float16")


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert one checkpoint; returns the exit code, 2 after an error."""
    options = _parser().parse_args(arguments)
    from cellvit_convert.pytorch_to_orbax import convert

    try:
        result = convert(
            options.source, options.target, dtype=options.dtype, overwrite=options.overwrite
        )
    except CellViTError as error:
        print(f"cellvit-convert: {_printable(str(error))}", file=sys.stderr)
        return 2
    print(_printable(_describe(result)))
    print(f"wrote      {options.target}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cellvit-convert",
        description="Turn a PyTorch checkpoint of CellViT into a checkpoint directory for JAX.",
    )
    parser.add_argument(
        "source", metavar="SRC", help="a .pth file; its content decides, not its name"
    )
    parser.add_argument("target", metavar="DST", help="the directory to write")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="type to store")
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint at DST")
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def _describe(result: "Conversion") -> str:
    cells = ", ".join(c.name for c in result.card.classes[1:])
    ignored = Counter(key.rpartition(".")[2] for key in result.ignored)
    lines = (
        f"recognised {result.config.architecture} (arch: {result.arch or 'not given'})",
        f"classes    {cells}",
        f"tissues    {len(result.card.tissues)}",
        f"parameters {result.parameters / 1e6:.1f} million",
        "ignored    " + (", ".join(f"{n} × {name}" for name, n in ignored.items()) or "nothing"),
    )
    return "\n".join(lines)


def _printable(text: str) -> str:
    """Names come from a file that may want to write to the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


if __name__ == "__main__":
    sys.exit(main())
