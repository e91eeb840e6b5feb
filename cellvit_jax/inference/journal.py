"""What is done of a slide, kept so that a killed run goes on from there.

A folder holds the cells of every row of tiles that is done, what the last ones leave to the next,
and, where rows take long, the tiles that are done of the row in progress. A line of `journal.jsonl`
names these files and their checksums; they are on the disk before it is written, and none that has
a line is ever changed. What a torn line or a damaged file makes uncertain, and all after it, is
done again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa

from cellvit_jax.errors import OutputError
from cellvit_jax.files import atomic_open, sync_folder
from cellvit_jax.inference import state
from cellvit_jax.inference.pipeline import Row, Seen

FORMAT_VERSION = 1
NAME = "journal.jsonl"
PAUSE = 30.0  # seconds after which the tiles of a row in progress are kept, too
STATES = 2  # the last one may turn out to be damaged

Arguments = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A line: a row that is done, or tiles of the row in progress; its files, name → checksum.

    `lost` are the tiles that could not be read so far, as the report has them.
    """

    kind: str
    row: int
    files: dict[str, str]
    lost: list[dict[str, Any]]


class Journal:
    """The journal in `folder` of a run with these `arguments`, plain values, to be continued.

    `after` is the last row that is done, None at the beginning, `tiles` are those of the next row
    that are, `lost` those that could not be read. Raises OutputError for the journal of a run with
    other arguments, and where nothing can be written.
    """

    def __init__(self, folder: Path, arguments: Arguments, *, pause: float | None = None):
        self._folder, self._pause = folder, PAUSE if pause is None else pause
        self._kept = time.monotonic()
        self._fresh: list[Seen] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._rows, self._tiles = _sound(folder, _entries(folder, arguments))
            self.after = _last(folder, self._rows)
            self.tiles = [one for entry in self._tiles for one in _seen(folder, entry)]
            self.lost = [*self._rows, *self._tiles][-1].lost if self._rows or self._tiles else []
            self._begin(arguments)
            self._file: BinaryIO = (folder / NAME).open("ab")
        except OSError as error:
            raise _refused(folder, error) from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def keep(self, seen: Iterable[Seen], lost: list[dict[str, Any]]) -> Iterator[Seen]:
        """Passes tiles on, and keeps them when nothing has been kept for a while."""
        for tile in seen:
            self._fresh.append(tile)
            if time.monotonic() - self._kept >= self._pause:
                name = f"tiles-{tile.place[0]:06}-{tile.place[1]:06}.npz"
                data = state.to_bytes(state.pack_seen(self._fresh))
                self._tiles.append(self._commit("tiles", tile.place[0], {name: data}, lost))
                self._fresh = []
            yield tile

    def add(self, row: Row, lost: list[dict[str, Any]]) -> None:
        """Keeps a row that is done."""
        files = {
            f"cells-{row.number:06}.arrow": state.table_to_bytes(row.table),
            f"state-{row.number:06}.npz": state.to_bytes(state.pack_remains(row.remains)),
        }
        self._rows.append(self._commit("row", row.number, files, lost))
        old = [_named(entry, "state") for entry in self._rows[:-STATES][-1:]]
        old += [_named(entry, "tiles") for entry in self._tiles]
        for name in old:
            (self._folder / name).unlink(missing_ok=True)
        self._fresh, self._tiles = [], []

    def tables(self) -> Iterator[pa.Table]:
        """The cells of every row that is done, in order."""
        for entry in self._rows:
            yield state.table_from_bytes((self._folder / _named(entry, "cells")).read_bytes())

    def _commit(
        self, kind: str, row: int, files: dict[str, bytes], lost: list[dict[str, Any]]
    ) -> Entry:
        """On the disk first the files, then the line."""
        entry = Entry(kind, row, {n: _checksum(data) for n, data in files.items()}, list(lost))
        try:
            for name, data in files.items():
                with (self._folder / name).open("wb") as file:
                    _write(file, data)
            sync_folder(self._folder)
            _write(self._file, orjson.dumps(dataclasses.asdict(entry)) + b"\n")
        except OSError as error:
            raise _refused(self._folder, error) from error
        self._kept = time.monotonic()
        return entry

    def _begin(self, arguments: Arguments) -> None:
        """Write the journal anew, without what is not sound; remove files that it does not name."""
        entries = [*self._rows, *self._tiles]
        lines = [{"format_version": FORMAT_VERSION, "arguments": dict(arguments)}]
        lines += [dataclasses.asdict(entry) for entry in entries]
        with atomic_open(self._folder / NAME) as file:
            _write(file, b"".join(orjson.dumps(line) + b"\n" for line in lines))
        named = {NAME, *(name for entry in entries for name in entry.files)}
        for path in self._folder.iterdir():
            if path.is_dir():  # results that were being written when the run was killed
                shutil.rmtree(path)
            elif path.name not in named:
                path.unlink()


def _entries(folder: Path, arguments: Arguments) -> list[Entry]:
    """The lines of the journal as far as they can be read. Raises OutputError, see `Journal`."""
    if not (folder / NAME).exists():
        return []
    parsed = map(_parsed, (folder / NAME).read_bytes().splitlines())
    lines = list(itertools.takewhile(bool, parsed))
    if not lines:
        return []
    check_arguments(folder, lines[0].get("arguments", {}), arguments)
    return [Entry(**line) for line in lines[1:]]


def check_arguments(place: Path, before: Arguments, now: Arguments) -> None:
    """Raises OutputError, naming the differences, if a run was made with other arguments."""
    now = orjson.loads(orjson.dumps(dict(now)))
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if names:
        differences = ", ".join(f"{n} {before.get(n)}, now {now.get(n)}" for n in names)
        raise OutputError(
            f"{place} is of a run with other arguments ({differences}): give --overwrite to "
            "replace it"
        )


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:  # the line that was being written when the run was killed
        return {}


def _sound(folder: Path, entries: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    """The rows from which a run can go on, and the tiles that were kept after the last of them."""
    rows = [entry for entry in entries if entry.kind == "row"]
    rows = list(itertools.takewhile(lambda entry: _holds(folder, entry, "cells"), rows))
    while rows and not _holds(folder, rows[-1], "state"):
        rows.pop()
    later = entries[entries.index(rows[-1]) + 1 if rows else 0 :]
    return rows, list(itertools.takewhile(lambda entry: _holds(folder, entry, "tiles"), later))


def _holds(folder: Path, entry: Entry, kind: str) -> bool:
    """Whether the entry has a file of this kind, and that is as it was written."""
    name = _named(entry, kind)
    try:
        return bool(name) and _checksum((folder / name).read_bytes()) == entry.files[name]
    except FileNotFoundError:
        return False


def _named(entry: Entry, kind: str) -> str:
    return next((name for name in entry.files if name.startswith(kind)), "")


def _last(folder: Path, rows: list[Entry]) -> Row | None:
    if not rows:
        return None
    cells, rest = ((folder / _named(rows[-1], kind)).read_bytes() for kind in ("cells", "state"))
    remains = state.unpack_remains(state.from_bytes(rest))
    return Row(rows[-1].row, remains, state.table_from_bytes(cells))


def _seen(folder: Path, entry: Entry) -> list[Seen]:
    return state.unpack_seen(state.from_bytes((folder / _named(entry, "tiles")).read_bytes()))


def _checksum(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _write(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _refused(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write into {folder}: {error.strerror or error}")
