"""Published weights: downloaded once, verified, and kept, so that they are there offline.

A file lies in the cache under `weights/`, in a folder of its own for every address. `<file>.json`
beside it records its length and SHA-256, by which it is verified whenever it is used again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from cellvit_jax import caches, plugins, zoo
from cellvit_jax.download import Report, Version, download, forget
from cellvit_jax.errors import FetchError, OutputError, printable
from cellvit_jax.files import atomic_open, check_free
from cellvit_jax.safetensors_files import is_safetensors

SUFFIXES = {".pth", ".pt", ".safetensors"}  # a target that is to be a copy of the file
STARTS = (b"PK\3\4", b"\x80")  # of a zip archive and of a pickle, the two forms of a .pth
ETAG_MD5 = r'"?md5:([0-9a-f]{32})"?'  # Zenodo's ETag is the checksum that it publishes


def run(
    name: str,
    target: Path | None = None,
    *,
    overwrite: bool = False,
    force: bool = False,
    quiet: bool = False,
) -> None:
    """`cellvit-jax fetch`: the file into the cache, and a copy or a model folder at `target`.

    Prints what was made on stdout, what is being done on stderr.
    """
    if target is not None:
        check_free(target, overwrite)
    say = _ignore if quiet else _tell
    with _progress(quiet) as report:
        path = fetch(name, force=force, report=report, say=say)
    if target is None:
        print(path)
    elif target.suffix in SUFFIXES:
        with path.open("rb") as source, atomic_open(target) as copy:
            shutil.copyfileobj(source, copy, 2**20)
        print(target)
    else:
        result = plugins.declared(plugins.CONVERTERS)(path, target, overwrite=overwrite)
        if not quiet:
            print(result.summary("float32"))
        print(target)


def fetch(
    name: str,
    *,
    force: bool = False,
    report: Report = lambda here, total: None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Path:
    """The file of published weights, by name or address, in the cache; downloaded if it is not.

    It is whole and verified when it appears there: against the checksum that is published, or
    where there is none against the one recorded when it first came. `force` downloads it again;
    `report` is told how many bytes are there and in all, `say` what a person should know. Raises
    `InputError` for an unknown name, `FetchError` where it cannot be had or is not what it should
    be (it is then removed), `OutputError` where the cache cannot be written.
    """
    published = zoo.published(name)
    path = place(published)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.parent):
            if not force and _cached(path, say):
                return path
            part = path.with_name(f"{path.name}.part")
            version = download(published.url, part, report=report, say=say)
            _accept(part, path, published, version, say)
    except OSError as problem:
        raise OutputError(f"{path} cannot be written: {problem.strerror or problem}") from problem
    return path


def place(published: zoo.Published) -> Path:
    """Where the file of an address lies, or will lie, in the cache."""
    address = hashlib.sha256(published.url.encode()).hexdigest()[:12]
    file = re.sub(r"[^\w.+-]", "_", published.file).lstrip(".") or "weights"
    return caches.folder() / "weights" / address / file


def _cached(path: Path, say: Callable[[str], None]) -> bool:
    """Whether the file is there as it came; one that has changed is removed."""
    if not path.exists():
        return False
    try:
        record = json.loads(_record(path).read_text())
        if record["size"] == path.stat().st_size and record["sha256"] == _digest(path, "sha256"):
            return True
    except (OSError, ValueError, KeyError, TypeError):
        pass
    say(f"{path} is not what was recorded of it: it is downloaded again")
    path.unlink()
    return False


def _accept(
    part: Path,
    path: Path,
    published: zoo.Published,
    version: Version,
    say: Callable[[str], None],
) -> None:
    """Give a file its name, if it is what it should be; else remove it."""
    expected = published.checksum or _of_server(version)
    try:
        _check(part, published.url, expected)
    except FetchError:
        forget(part)
        raise
    sha256 = _digest(part, "sha256")
    record = {"url": published.url, "size": part.stat().st_size, "sha256": sha256}
    with atomic_open(_record(path)) as file:
        file.write(json.dumps(record, indent=1).encode() + b"\n")
    os.replace(part, path)
    forget(part)
    if not expected:
        say(f"no checksum is published: recorded sha256 {sha256} for the next use")


def _check(part: Path, url: str, expected: str) -> None:
    with part.open("rb") as file:
        start = file.read(16)
    if not start.startswith(STARTS) and not is_safetensors(part):
        raise FetchError(
            f"{url} gave something else than weights, it starts with {start!r}: removed"
        )
    algorithm, _, digest = expected.partition(":")
    if expected and (found := _digest(part, algorithm)) != digest:
        raise FetchError(
            f"{url} gave a file with {algorithm} {found}, published is {digest}: removed; "
            "try again, and if it comes again do not use it"
        )


def _of_server(version: Version) -> str:
    found = re.fullmatch(ETAG_MD5, version.etag)
    return f"md5:{found[1]}" if found else ""


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuse to fetch what another process is fetching; where files cannot be locked, go on."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as problem:
        raise FetchError(f"another process is downloading to {folder}: wait for it") from problem
    finally:
        os.close(handle)


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Report]:
    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    hidden = quiet or not console.is_terminal
    with Progress(*columns, console=console, disable=hidden, transient=True) as bar:
        task = bar.add_task("download", total=None)
        yield lambda here, total: bar.update(task, completed=here, total=total)


def _tell(sentence: str) -> None:
    print(f"cellvit-jax: {printable(sentence)}", file=sys.stderr)


def _ignore(sentence: str) -> None:
    pass
