"""What `cellvit-jax inspect` prints: what a checkpoint is, without loading its weights.

Files of other frameworks are the affair of packages that declare an inspector, as cellvit_convert
does: this package knows none of them.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cellvit_jax import checkpoint, plugins, zoo
from cellvit_jax.card import ModelCard
from cellvit_jax.errors import printable

STATISTICS = ("mean", "var")


@dataclasses.dataclass(frozen=True)
class Summary:
    """What there is to say of a checkpoint; `dtypes` are those of its parameters."""

    config: checkpoint.Config
    card: ModelCard
    parameters: int
    dtypes: Sequence[str]
    arch: str = ""
    epoch: int | None = None
    ignored: Sequence[str] = ()

    def __str__(self) -> str:
        kinds = Counter(map(_short, self.ignored))
        lines = {
            "architecture": f"{self.config.architecture} (arch: {self.arch or 'not given'})",
            "classes": ", ".join(c.name for c in self.card.classes[1:]) or "none",
            "tissues": ", ".join(self.card.tissues) or "none",
            "parameters": f"{self.parameters / 1e6:.1f} million",
            "dtype": ", ".join(self.dtypes),
            "epoch": "not given" if self.epoch is None else str(self.epoch),
            "ignored": ", ".join(f"{n} × {name}" for name, n in kinds.items()) or "nothing",
        }
        return printable("\n".join(f"{name:12} {value}" for name, value in lines.items()))


def _short(key: str) -> str:
    """What says of many ignored keys at once what they are: a layer, or a counter's name."""
    layer = re.sub(r"(\.\d+)*\.(weight|bias)\w*$", "", key)
    return layer if layer != key else key.rpartition(".")[2]


def inspect(source: str | Path) -> Summary:
    """What a checkpoint directory, a bundled model or a file of weights is.

    Raises `InputError` for a name that stands for nothing, `CheckpointError` for a checkpoint that
    could not be loaded or converted.
    """
    if Path(source).is_file():
        return plugins.declared(plugins.INSPECTORS)(source)
    path = zoo.find(source)
    config, card = checkpoint.read_config(path)
    origin = checkpoint.read_origin(path)
    types = checkpoint.read_types(path)
    parameters = [t for name, t in types.items() if name.rpartition(".")[2] not in STATISTICS]
    return Summary(
        config,
        card,
        sum(math.prod(parameter.shape) for parameter in parameters),
        sorted({str(parameter.dtype) for parameter in parameters}),
        origin.get("arch", ""),
        origin.get("epoch"),
    )
