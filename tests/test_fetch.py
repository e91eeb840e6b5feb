"""Downloads from a server on this machine that behaves as servers do at their worst."""

import hashlib
import http.server
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import cellvit_jax as cj
from cellvit_jax import cli, download, zoo
from cellvit_jax.errors import CellViTError, FetchError, InputError, OutputError
from cellvit_jax.fetch import fetch, place
from tests.convert.archives import write_archive

LAYERS = {"fc1.weight": (300, 99), "fc1.bias": (300,), "fc2.weight": (2, 300), "fc2.bias": (2,)}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.content`, and misbehaves as the next of `server.faults` says."""

    def do_GET(self) -> None:
        fault = self.server.faults.pop(0) if self.server.faults else {}
        self.server.asked.append(self.headers.get("Range"))
        content, etag = self.server.content, self.server.etag
        if status := fault.get("status"):
            self.send_error(status)
            return
        start, whole = 0, len(content)
        wanted = self.headers.get("Range", "")
        same = self.headers.get("If-Range") == etag or fault.get("careless")
        if wanted and same and not fault.get("no ranges"):
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) + fault.get("shift", 0)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        else:
            self.send_response(200)
        if etag:
            self.send_header("ETag", etag)
        self.send_header("Content-Length", str(whole - start))
        self.end_headers()
        self.wfile.write(content[start : start + fault.get("drop", whole)])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[http.server.ThreadingHTTPServer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = {key: np.ones(shape, np.float32) for key, shape in LAYERS.items()}
    server.content = write_archive(tmp_path / "x.pth", state).read_bytes()
    server.etag, server.faults, server.asked = '"one"', [], []
    server.url = f"http://127.0.0.1:{server.server_port}/head.pth?download=1"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CELLVIT_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0, 0.0))
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def call(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cellvit-jax", "fetch", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


def left(server) -> set[str]:
    """The files in the cache."""
    folder = place(zoo.published(server.url)).parent
    return {path.name for path in folder.iterdir()}


def refusal(server, error: type[CellViTError] = FetchError) -> str:
    with pytest.raises(error) as caught:
        fetch(server.url)
    assert not place(zoo.published(server.url)).exists()
    return str(caught.value)


# ----- what comes ------------------------------------------------------------------------------


def test_a_file_comes_whole_and_is_recorded(server) -> None:
    said: list[str] = []
    path = fetch(server.url, say=said.append)
    assert path.read_bytes() == server.content
    assert left(server) == {"head.pth", "head.pth.json"}
    record = json.loads(path.with_name("head.pth.json").read_text())
    assert record["sha256"] == hashlib.sha256(server.content).hexdigest()
    assert record["size"] == len(server.content)
    assert len(said) == 1
    assert "no checksum is published" in said[0]


def test_it_is_there_offline_afterwards(server) -> None:
    path = fetch(server.url)
    server.shutdown()
    server.server_close()
    assert fetch(server.url) == path
    assert len(server.asked) == 1


def test_force_downloads_again(server) -> None:
    fetch(server.url)
    fetch(server.url, force=True)
    assert len(server.asked) == 2


@pytest.mark.parametrize("damage", [b"", b"PK\3\4 cut"])
def test_a_cached_file_that_changed_is_downloaded_again(server, damage: bytes) -> None:
    said: list[str] = []
    fetch(server.url).write_bytes(damage)
    assert fetch(server.url, say=said.append).read_bytes() == server.content
    assert "not what was recorded" in said[0]


def test_progress_is_reported(server) -> None:
    seen: list[tuple[int, int | None]] = []
    fetch(server.url, report=lambda here, total: seen.append((here, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (len(server.content), len(server.content))


# ----- what breaks -----------------------------------------------------------------------------


def test_a_broken_download_goes_on(server) -> None:
    server.faults = [{"drop": 50_000}, {"drop": 30_000}]
    assert fetch(server.url).read_bytes() == server.content
    assert server.asked == [None, "bytes=50000-", "bytes=80000-"]


def test_it_goes_on_in_another_run(server) -> None:
    server.faults = [{"drop": 50_000}] + [{"status": 503}] * 4
    message = refusal(server)
    assert "503" in message
    assert "50,000 bytes" in message
    assert fetch(server.url).read_bytes() == server.content
    assert server.asked[-1] == "bytes=50000-"


def test_progress_earns_further_tries(server) -> None:
    server.faults = [{"drop": 10_000}] * 9
    assert fetch(server.url).read_bytes() == server.content
    assert len(server.asked) == 10


def test_a_server_without_ranges_starts_again(server) -> None:
    server.faults = [{"drop": 50_000}, {"no ranges": True}]
    assert fetch(server.url).read_bytes() == server.content


def test_tries_end_where_nothing_new_comes(server) -> None:
    server.faults = [{"drop": 50_000, "no ranges": True}] * 99
    assert "the connection broke after 50,000 of" in refusal(server)
    assert len(server.asked) == 4


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_strong_mark_it_starts_again(server, etag: str) -> None:
    server.etag = etag
    server.faults = [{"drop": 50_000}]
    assert fetch(server.url).read_bytes() == server.content
    assert server.asked == [None, None]


@pytest.mark.parametrize("fault", [{}, {"careless": True}])
def test_a_file_that_changes_midway_is_not_mixed(server, fault: dict) -> None:
    server.faults = [{"drop": 50_000}, {"status": 503}, {"status": 503}, {"status": 503}]
    refusal(server)
    server.content, server.etag = server.content[:-9] + bytes(9), '"two"'
    server.faults = [fault]
    assert fetch(server.url).read_bytes() == server.content


def test_a_file_that_became_shorter_starts_again(server) -> None:
    server.faults = [{"drop": 50_000}, {"status": 416}]
    assert fetch(server.url).read_bytes() == server.content
    assert server.asked == [None, "bytes=50000-", None]


def test_a_range_from_elsewhere_is_not_taken(server) -> None:
    server.faults = [{"drop": 50_000}, {"shift": 7}]
    assert fetch(server.url).read_bytes() == server.content


# ----- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "words"), [(404, "does not have it"), (403, "refuses")])
def test_what_is_not_there_is_said_at_once(server, status: int, words: str) -> None:
    server.faults = [{"status": status}]
    assert words in refusal(server)
    assert len(server.asked) == 1
    assert left(server) == set()


def test_no_network(server) -> None:
    server.shutdown()
    server.server_close()
    assert "no connection" in refusal(server)


def test_something_else_than_weights_is_removed(server) -> None:
    server.content = b"<!DOCTYPE html><title>Please log in</title>"
    assert "something else than weights" in refusal(server)
    assert left(server) == set()


def test_the_checksum_of_the_server_counts(server) -> None:
    server.etag = f'"md5:{hashlib.md5(server.content).hexdigest()}"'
    said: list[str] = []
    fetch(server.url, say=said.append)
    assert said == []
    server.etag = f'"md5:{"0" * 32}"'
    with pytest.raises(FetchError, match="published is 0000"):
        fetch(server.url, force=True)


def test_the_published_checksum_counts(server, monkeypatch) -> None:
    wrong = zoo.Published("head.pth", server.url, f"sha256:{'0' * 64}")
    monkeypatch.setitem(zoo.PUBLISHED, "my-head", wrong)
    with pytest.raises(FetchError, match=r"sha256 .* removed"):
        fetch("my-head")
    assert left(server) == set()


def test_a_full_disk_is_said(server) -> None:
    part = place(zoo.published(server.url)).with_name("head.pth.part")
    part.parent.mkdir(parents=True)
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    part.symlink_to("/dev/full")
    assert "No space left on device" in refusal(server, OutputError)


def test_too_little_room_is_known_before(server, monkeypatch) -> None:
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert "make room" in refusal(server, OutputError)


def test_a_cache_that_cannot_be_written(server, monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CELLVIT_JAX_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="cannot be written"):
        fetch(server.url)


def test_two_at_once_are_refused(server) -> None:
    fcntl = pytest.importorskip("fcntl")
    path = fetch(server.url)
    handle = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(FetchError, match="another process"):
        fetch(server.url)
    os.close(handle)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cellvit-virchowx40", "from its authors"),
        ("cellvit-sam-h-x4", "did you mean cellvit-sam-h-x40"),
        ("cellvit-tiny-consep", "is bundled"),
        ("ftp://example.org/x.pth", "no model or folder"),
    ],
)
def test_names_that_cannot_be_fetched(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        fetch(name)


def test_addresses_of_published_weights() -> None:
    sam = zoo.published("cellvit-samx40")
    assert sam == zoo.published("cellvit-sam-h-x40")
    assert sam.url == (
        "https://zenodo.org/records/15094831/files/CellViT-SAM-H-x40-AMP.pth?download=1"
    )
    assert place(sam).name == "CellViT-SAM-H-x40-AMP.pth"


def test_names_of_files_cannot_leave_the_cache(tmp_path: Path) -> None:
    for name in ("..%2F..%2Fetc", "..", "", ".hidden", "a b;c"):
        path = place(zoo.published(f"http://127.0.0.1/{name}"))
        assert path.parent.parent == tmp_path / "cache" / "weights"
        assert not path.name.startswith(".")


# ----- the command -----------------------------------------------------------------------------


def test_the_command_prints_where_the_file_is(server, call) -> None:
    code, out, err = call(server.url)
    assert code == 0
    assert Path(out.strip()).read_bytes() == server.content
    assert err.startswith("cellvit-jax: no checksum is published: recorded sha256")
    assert call(server.url, "--quiet") == (0, out, "")


def test_the_command_makes_a_model_folder(server, call, tmp_path: Path) -> None:
    code, out, _ = call(server.url, tmp_path / "head")
    assert code == 0
    assert "cell_classifier" in out
    assert cj.load(tmp_path / "head").config.token_dim == 99
    code, _, err = call(server.url, tmp_path / "head")
    assert code == 2
    assert "--overwrite" in err
    assert call(server.url, tmp_path / "head", "--overwrite")[0] == 0


def test_the_command_copies_a_file(server, call, tmp_path: Path) -> None:
    assert call(server.url, tmp_path / "y.pth")[:2] == (0, f"{tmp_path / 'y.pth'}\n")
    assert (tmp_path / "y.pth").read_bytes() == server.content


def test_the_command_says_what_went_wrong(server, call, tmp_path: Path) -> None:
    server.faults = [{"status": 404}]
    code, out, err = call(server.url, tmp_path / "head")
    assert (code, out) == (2, "")
    assert err.startswith("cellvit-jax: http://127.0.0.1")
    assert not (tmp_path / "head").exists()
