"""What a file of weights is, for `cellvit-jax inspect`."""

from pathlib import Path

from cellvit_convert.content import Content
from cellvit_convert.pytorch_to_orbax import translate
from cellvit_jax.inspection import Summary


def inspect(path: str | Path) -> Summary:
    """What a `.pth` or `.safetensors` file holds, and what of it a conversion would ignore.

    Raises `CheckpointError` for one that could not be converted, `UnsafeFileError` for one that
    asks to run something.
    """
    content = Content.read(path)
    result = translate(content)
    used = (tensor for key, tensor in content.tensors.items() if key not in result.ignored)
    return result.summary(*sorted({str(tensor.dtype) for tensor in used}))
