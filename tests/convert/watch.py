"""What Python itself reports of a block of code: did it run, import, write or connect anything?"""

# what the readers of zip names and of protocol 0 use, loaded by Python on their first use
import encodings.cp437
import encodings.raw_unicode_escape  # noqa: F401
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

RUNNING = ("exec", "compile", "import", "os.", "subprocess.", "socket.", "ctypes.", "pickle.")
HARMLESS = {"os.listdir", "os.scandir"}

_seen: list[str] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is not None and (_writes(event, arguments) or _runs(event)):
        _seen.append(f"{event}{arguments!r:.80}")


def _runs(event: str) -> bool:
    return event.startswith(RUNNING) and event not in HARMLESS


def _writes(event: str, arguments: tuple[Any, ...]) -> bool:
    return (
        event == "open" and isinstance(arguments[1], str) and bool(set(arguments[1]) & set("wax+"))
    )


sys.addaudithook(_hook)  # there is no way to remove one


@contextmanager
def nothing_runs() -> Iterator[None]:
    """Fails if the block runs or compiles code, imports, starts, writes or connects anything."""
    global _seen
    _seen = seen = []
    try:
        yield
    finally:
        _seen = None
        assert not seen, seen
