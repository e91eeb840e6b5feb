"""One process at a time, and no lock outlives its process."""

import os
import subprocess
import sys
import threading

import pytest

from cellvit_jax.errors import OutputError
from cellvit_jax.inference import locks

HOLD = """
import sys
from pathlib import Path
from cellvit_jax.inference import locks
with locks.held(Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


def test_who_comes_second_does_not_get_it(tmp_path):
    path = tmp_path / "new" / "a.lock"
    with locks.held(path) as first, locks.held(path) as second:
        assert (first, second) == (True, False)
    assert not path.exists()
    with locks.held(path) as again:
        assert again


def test_a_killed_process_holds_nothing_whatever_the_clock_says(tmp_path):
    path = tmp_path / "a.lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"True\n"
        os.utime(path, (0, 0))  # as if it were ages old: still held
        with locks.held(path) as mine:
            assert not mine
        process.kill()
        process.wait()
        os.utime(path, (2**33, 2**33))  # as if it were of the future: not held any more
        with locks.held(path) as mine:
            assert mine


def test_of_many_at_once_one_gets_it(tmp_path):
    inside, most = 0, 0
    counting = threading.Lock()

    def enter():
        nonlocal inside, most
        for _ in range(50):
            with locks.held(tmp_path / "a.lock") as mine:
                if mine:
                    with counting:
                        inside += 1
                        most = max(most, inside)
                    with counting:
                        inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_where_it_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"), locks.held(tmp_path / "file" / "a.lock"):
        pass
