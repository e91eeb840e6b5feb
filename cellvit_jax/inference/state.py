"""What a run has in memory between two rows, as arrays that a file can hold."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import pyarrow as pa

from cellvit_jax.cells import Piece, Remains, Tokens
from cellvit_jax.inference.pipeline import Seen

Arrays = dict[str, np.ndarray]
OPTIONAL = ("probabilities", "haematoxylin")  # of what pieces say of their pixels


def to_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The arrays as a .npz file; equal arrays, equal bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def from_bytes(data: bytes) -> Arrays:
    """The inverse of `to_bytes`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return dict(file)


def table_to_bytes(table: pa.Table) -> bytes:
    """A table as a compressed Arrow stream."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()


def table_from_bytes(data: bytes) -> pa.Table:
    """The inverse of `table_to_bytes`."""
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()


def pack_remains(remains: Remains) -> Arrays:
    """`Remains` as arrays."""
    arrays = pack_pieces(remains.pieces)
    arrays["numbers"] = np.array([remains.line, remains.found, *remains.cuts], np.int64)
    if remains.waiting is not None:
        arrays["waiting"] = np.frombuffer(table_to_bytes(remains.waiting), np.uint8)
    if remains.tokens is not None:
        arrays |= pack_tokens(remains.tokens)
    return arrays


def unpack_remains(arrays: Arrays) -> Remains:
    """The inverse of `pack_remains`."""
    line, found, *cuts = arrays["numbers"].tolist()
    waiting = table_from_bytes(arrays["waiting"].tobytes()) if "waiting" in arrays else None
    pieces = tuple(unpack_pieces(arrays))
    return Remains(pieces, tuple(cuts), line, waiting, found, unpack_tokens(arrays))


def pack_tokens(tokens: Tokens, name: object = "") -> Arrays:
    """A token grid as arrays, told from others by a name."""
    numbers = [*(n for side in tokens.sides for n in side.as_integer_ratio()), tokens.first]
    return {f"grid{name}": tokens.grid, f"place{name}": np.array(numbers, np.int64)}


def unpack_tokens(arrays: Arrays, name: object = "") -> Tokens | None:
    """The inverse of `pack_tokens`, None where there is no grid of that name."""
    if f"grid{name}" not in arrays:
        return None
    height, rows, width, columns, first = arrays[f"place{name}"].tolist()
    return Tokens(arrays[f"grid{name}"], (Fraction(height, rows), Fraction(width, columns)), first)


def pack_pieces(pieces: Sequence[Piece]) -> Arrays:
    """Pieces as arrays, end to end."""
    frames = [(p.row, p.col, *p.mask.shape, len(p.edge), p.context) for p in pieces]
    arrays = {
        "frames": np.array(frames, np.int64).reshape(-1, 6),
        "masks": _joined([np.packbits(p.mask) for p in pieces], np.uint8),
        "edge": _joined([p.edge for p in pieces], np.float32),
        "types": _joined([p.types for p in pieces], np.uint8),
    }
    for name in OPTIONAL:
        if pieces and getattr(pieces[0], name) is not None:
            arrays[name] = np.concatenate([getattr(p, name) for p in pieces])
    return arrays


def unpack_pieces(arrays: Arrays) -> list[Piece]:
    """The inverse of `pack_pieces`."""
    pieces, start, byte = [], 0, 0
    for row, col, height, width, count, context in arrays["frames"].tolist():
        end, stop = start + count, byte + -(-height * width // 8)
        bits = np.unpackbits(arrays["masks"][byte:stop], count=height * width)
        values = {n: arrays[n][start:end] for n in ("edge", "types", *OPTIONAL) if n in arrays}
        pieces.append(Piece(row, col, bits.reshape(height, width), **values, context=bool(context)))
        start, byte = end, stop
    return pieces


def pack_seen(tiles: Sequence[Seen]) -> Arrays:
    """Tiles that are through the network as arrays."""
    arrays = pack_pieces([tile.piece for tile in tiles if tile.piece])
    arrays["places"] = np.array([(*tile.place, tile.piece is not None) for tile in tiles], np.int64)
    for i, tile in enumerate(tiles):
        if tile.tokens:
            arrays |= pack_tokens(tile.tokens, i)
    return arrays


def unpack_seen(arrays: Arrays) -> list[Seen]:
    """The inverse of `pack_seen`."""
    pieces = iter(unpack_pieces(arrays))
    return [
        Seen((row, col), next(pieces) if has_piece else None, unpack_tokens(arrays, i))
        for i, (row, col, has_piece) in enumerate(arrays["places"].tolist())
    ]


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)
