"""`cellvit-convert SRC DST`: argument parsing, nothing else."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cellvit_jax import __version__
from cellvit_jax.errors import CellViTError, InputError, printable, show_warnings

if TYPE_CHECKING:
    from cellvit_convert.conversion import Conversion

DTYPES = ("float32", "bfloat16", "float16")


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert one checkpoint; returns the exit code, 2 after an error."""
    options = _parser().parse_args(arguments)
    show_warnings("cellvit-convert")
    try:
        result = _convert(options)
    except CellViTError as error:
        print(f"cellvit-convert: {printable(str(error))}", file=sys.stderr)
        return 2
    print(result.summary(options.dtype))
    print(f"wrote        {options.target}")
    return 0


def _convert(options: argparse.Namespace) -> "Conversion":
    """What the source is decides the direction."""
    from cellvit_convert import orbax_to_pytorch, pytorch_to_orbax

    common = {"dtype": options.dtype, "overwrite": options.overwrite}
    if not Path(options.source).is_dir():
        return pytorch_to_orbax.convert(options.source, options.target, part=options.part, **common)
    if options.part:
        raise InputError("--part is for files of DINO: a directory holds one network")
    return orbax_to_pytorch.convert(options.source, options.target, **common)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cellvit-convert",
        description="Turn a PyTorch checkpoint of CellViT, of a cell classifier head, of SAM or "
        "SAM-Med2D, or of a foundation encoder into a checkpoint directory for JAX, "
        "or a checkpoint directory into a PyTorch checkpoint.",
    )
    parser.add_argument(
        "source",
        metavar="SRC",
        help="a .pth or .safetensors file, told by its content, or a directory",
    )
    parser.add_argument("target", metavar="DST", help="the directory or .pth file to write")
    parser.add_argument(
        "--part",
        choices=("teacher", "student"),
        help="of a training with DINO, as HIPT's: the teacher where nothing is said",
    )
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="type to store")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at DST")
    parser.add_argument("--version", action="version", version=__version__)
    return parser


if __name__ == "__main__":
    sys.exit(main())
