"""What a checkpoint file holds, whichever of the usual layouts it has."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cellvit_jax.errors import CheckpointError
from cellvit_jax.safetensors_files import is_safetensors, read_safetensors
from cellvit_jax.torch_files import read_torch

MAX_BLOCKS = 256
STATES = ("model_state_dict", "model")  # where a checkpoint may keep its state dict
PARTS = ("teacher", "student")  # of a DINO training; the first is the better encoder


@dataclass(frozen=True)
class Content:
    """A state dict and what its file says about it.

    `config` is the flat dictionary with dotted keys that CellViT stores beside its weights. What
    it says is believed only where the tensors leave a question open. `part` is the part of a DINO
    training that the tensors are, `other_parts` those that are left aside.
    """

    tensors: Mapping[str, np.ndarray]
    arch: str = ""
    epoch: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
    other_parts: Sequence[str] = ()

    @classmethod
    def read(cls, path: str | Path, part: str | None = None) -> "Content":
        """The content of a `.pth` or `.safetensors` file, whatever its name.

        `part` chooses between the "teacher", which is taken where nothing is chosen, and the
        "student" of a DINO training. Raises `CheckpointError` if the file holds no state dict, or
        not that part.
        """
        checkpoint: Any = read_safetensors(path) if is_safetensors(path) else read_torch(path)
        found = checkpoint if isinstance(checkpoint, dict) else {}
        parts = [name for name in PARTS if _is_state_dict(found.get(name))]
        if part and part not in parts:
            raise CheckpointError(
                f"{path} has no {part}: it has {' and '.join(parts) or 'no parts'}"
            )
        part = part or (parts[0] if parts else "")
        places = (part,) if part else STATES
        tensors = next((found[key] for key in places if key in found), found)
        if not _is_state_dict(tensors):
            what = ", ".join(map(repr, list(found)[:8])) or type(checkpoint).__name__
            raise CheckpointError(f"{path} holds no state dict of tensors, only {what}")
        arch, epoch, config = (found.get(key) for key in ("arch", "epoch", "config"))
        return cls(
            tensors,
            arch if isinstance(arch, str) else "",
            epoch if isinstance(epoch, int) else None,
            config if isinstance(config, dict) else {},
            part,
            [name for name in parts if name != part],
        )

    @cached_property
    def prefix(self) -> str:
        """What stands before the names of a vision transformer, if there is one."""
        qkv = (match[1] for match, _ in self.matches(r"(.*?)blocks\.\d+\.attn\.qkv\.weight"))
        return next(qkv, "")

    def inside(self, prefix: str) -> "Content":
        """What lies behind a prefix, as if it were CellViT's `encoder.`, to be measured."""
        tensors = {
            f"encoder.{key.removeprefix(prefix)}": tensor
            for key, tensor in self.tensors.items()
            if key.startswith(prefix)
        }
        return Content(tensors, config=self.config)

    def matches(self, pattern: str) -> Iterator[tuple[re.Match[str], np.ndarray]]:
        """The tensors whose whole key matches."""
        for key, tensor in self.tensors.items():
            if match := re.fullmatch(pattern, key):
                yield match, tensor

    def has(self, pattern: str) -> bool:
        return any(True for _ in self.matches(pattern))

    def size(self, pattern: str, *, axis: int = 0, default: int | None = None) -> int:
        """The length above 0 that most tensors of that name have along an axis.

        Without any such tensor it is `default`, or a `CheckpointError` where there is none.
        """
        lengths = [t.shape[axis] for _, t in self.matches(pattern) if t.ndim > axis]
        found = Counter(filter(None, lengths))
        if not found and default is None:
            raise CheckpointError(f"the checkpoint has no tensor that is named like {pattern}")
        return found.most_common(1)[0][0] if found else default  # type: ignore[return-value]

    def count(self, pattern: str) -> int:
        """How many different layers the pattern's first group counts."""
        count = len({match[1] for match, _ in self.matches(pattern)})
        if count > MAX_BLOCKS:
            raise CheckpointError(f"an encoder of {count} blocks is more than any that is known")
        return count

    def integers(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """One or several positive numbers from the config; a `CheckpointError` without any."""
        value = self.config.get(key)
        values = (
            default if value is None else value if isinstance(value, list | tuple) else (value,)
        )
        if not values or not all(type(v) is int and v > 0 for v in values):
            raise CheckpointError(f"the checkpoint's config does not say {key} in whole numbers")
        return tuple(values)

    def rate(self, key: str) -> float:
        """A dropout rate from the config, 0 if it has none."""
        value = self.config.get(key)
        return float(value) if isinstance(value, int | float) and 0 <= value < 1 else 0.0


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(k, str) and isinstance(v, np.ndarray) for k, v in value.items())
    )
