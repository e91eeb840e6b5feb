"""Eight simulated devices for every test, and compiled programs kept from one run to the next.

Programs are compiled in a hurry, in a third of the time: what most tests compute takes
milliseconds. `tests/parity` has LLVM's optimisations, and what users have where neither of the
first two variables below is left to be set here.
"""

import os
import sys

# before JAX is imported, and for the processes that tests start
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
# seconds of compilation from which on a program is kept
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import hypothesis
import jax
import pytest

from cellvit_jax import cli

# before anything touches a device: afterwards the number is fixed
jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS", "cpu"))
jax.config.update("jax_num_cpu_devices", 8)

# how long an example takes is the machine's affair
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """Keep programs that take a while to compile in pytest's cache (see `--cache-clear`).

    What one test compiles serves others, in other processes and other runs: tracing remains.
    """
    if cache := getattr(config, "cache", None):
        jax.config.update("jax_compilation_cache_dir", str(cache.mkdir("jax")))


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command `cellvit-jax` in this process: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cellvit-jax", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return run
