"""What a run wrote to its logs."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CLOCK = ("time", "images_per_second")


def rows(run: Path) -> list[dict[str, float]]:
    """The lines of `log.jsonl`, without what the clock has a part in."""
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in CLOCK} for line in lines]


def points(run: Path) -> Iterator[Any]:
    """The summaries in TensorBoard's files: protocol buffers, each between its size and sums."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted((run / "tensorboard").iterdir()):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (size,) = struct.unpack_from("<Q", content, at)
            yield from Event.FromString(content[at + 12 : at + 12 + size]).summary.value
            at += size + 16
