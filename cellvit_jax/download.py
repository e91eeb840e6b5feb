"""One file over HTTP, which goes on where it broke off."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cellvit_jax import __version__
from cellvit_jax.errors import FetchError, OutputError

CHUNK = 2**20
TIMEOUT = 30.0  # seconds without a byte
PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before another try; progress starts them anew
PASSING = {408, 425, 429, 500, 502, 503, 504}  # answers that another try may not get
REASONS = {
    401: "asks for a login",
    403: "refuses to give it",
    404: "does not have it",
    410: "has it no more",
}

Report = Callable[[int, int | None], None]  # bytes that are there, bytes in all if known


class _Broken(Exception):
    """A transfer that may go on when it is tried again; its text says what happened."""


class _Changed(_Broken):
    """A transfer that must begin anew."""

    def __str__(self) -> str:
        return "the server has another file than it had"


class Version(NamedTuple):
    """What a server says of a file: its length, and what changes when the file does."""

    size: int | None = None
    etag: str = ""
    modified: str = ""

    @property
    def condition(self) -> str:
        """The value for If-Range; empty where a change could go unnoticed."""
        return self.modified if not self.etag or self.etag.startswith("W/") else self.etag


def download(
    url: str,
    path: Path,
    *,
    report: Report = lambda here, total: None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Version:
    """Bring the whole of a file to `path`, and what its server says of it.

    What lies at `path` already goes on to be filled if the server still has the same file; beside
    it, `<path>.json` notes which. A broken connection is tried again until several tries in a row
    bring nothing new. Raises `FetchError` where the server or the network do not give it, with
    what has come kept for the next call, and `OutputError` where it cannot be written.
    """
    pauses, furthest = iter(PAUSES), _length(path)
    while True:
        try:
            return _transfer(url, path, report)
        except OSError as problem:  # the network's are _Broken by now
            raise OutputError(f"{path} cannot be written: {_words(problem)}") from problem
        except _Broken as problem:
            if isinstance(problem, _Changed):
                forget(path)
            if _length(path) > furthest:
                pauses, furthest = iter(PAUSES), _length(path)
            pause = next(pauses, None)
            if pause is None:
                raise FetchError(_lost(url, problem, path)) from problem
            say(f"{problem}: trying again in {pause:g} s")
            time.sleep(pause)


def forget(path: Path) -> None:
    """Remove what has come of a file, and what was noted of it."""
    path.unlink(missing_ok=True)
    _notes(path).unlink(missing_ok=True)


def _lost(url: str, problem: _Broken, path: Path) -> str:
    here = _length(path)
    kept = f"; the {here:,} bytes that came are kept, the same command goes on" if here else ""
    return f"{url} cannot be downloaded: {problem}{kept}"


def _transfer(url: str, path: Path, report: Report) -> Version:
    """One try to get what is missing."""
    known, here = _noted(path), _length(path)
    if here and here == known.size:
        return known
    start = here if known.condition else 0
    asked = {"Range": f"bytes={start}-", "If-Range": known.condition} if start else {}
    with _open(url, asked) as response:
        if response.status == 206 and not _goes_on(response, start, known):
            raise _Changed
        start = start if response.status == 206 else 0
        version = _version(response, start)
        _check_space(path, version.size, start)
        with path.open("r+b" if start else "wb") as file:
            _note(path, version)
            file.seek(start)
            _copy(response, file, version.size, report)
    return version


def _open(url: str, asked: dict[str, str]) -> http.client.HTTPResponse:
    headers = {"User-Agent": f"cellvit-jax/{__version__}", "Accept-Encoding": "identity", **asked}
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as answer:
        answer.close()
        if answer.code in PASSING:
            raise _Broken(f"the server answers {answer.code} ({answer.reason})") from answer
        if answer.code == 416 and asked:  # no such range: what is here is of another file
            raise _Changed from answer
        reason = REASONS.get(answer.code, f"answers {answer.code} ({answer.reason})")
        raise FetchError(f"{url} cannot be downloaded: the server {reason}") from answer
    except urllib.error.URLError as problem:
        if isinstance(problem.reason, ssl.SSLCertVerificationError):
            raise FetchError(f"{url}: the server's certificate is not trusted") from problem
        raise _Broken(f"no connection ({_words(problem.reason)})") from problem
    except (OSError, http.client.HTTPException) as problem:
        raise _Broken(f"the connection broke ({_words(problem)})") from problem


def _words(problem: object) -> str:
    return getattr(problem, "strerror", None) or str(problem) or type(problem).__name__


def _goes_on(response, start: int, known: Version) -> bool:
    """Whether a part is of the file that was begun, from where it stopped."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    etag = response.headers.get("ETag") or known.etag
    return (
        found is not None
        and int(found[1]) == start
        and found[2] in (str(known.size), "*")
        and etag == known.etag
    )


def _version(response, start: int) -> Version:
    length, headers = response.headers.get("Content-Length"), response.headers
    size = start + int(length) if length and length.isdigit() else None
    return Version(size, headers.get("ETag", ""), headers.get("Last-Modified", ""))


def _check_space(path: Path, size: int | None, start: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if size is not None and size - start > free:
        raise OutputError(
            f"{path.parent} has {free / 1e9:.2f} GB left and {(size - start) / 1e9:.2f} are to "
            "come: make room, or set CELLVIT_JAX_CACHE to a folder elsewhere"
        )


def _copy(response, file: BinaryIO, size: int | None, report: Report) -> None:
    while chunk := _read(response):
        file.write(chunk)
        report(file.tell(), size)
    if size is not None and file.tell() < size:
        raise _Broken(f"the connection broke after {file.tell():,} of {size:,} bytes")


def _read(response) -> bytes:
    try:
        return response.read1(CHUNK)
    except (OSError, http.client.HTTPException) as problem:
        raise _Broken(f"the connection broke ({_words(problem)})") from problem


# ----- what has come so far --------------------------------------------------------------------


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _notes(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _note(path: Path, version: Version) -> None:
    _notes(path).write_text(json.dumps(version._asdict()))


def _noted(path: Path) -> Version:
    try:
        return Version(**json.loads(_notes(path).read_text()))
    except (OSError, ValueError, TypeError):
        return Version()
