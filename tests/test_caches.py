"""Compiled programs are kept in a folder of this package, those too that compile in no time."""

from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from cellvit_jax import caches
from tests.networks import save_small

OPTIONS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """The package's folder of programs, empty; afterwards that of the tests is in use again."""
    before = {name: jax.config.values[name] for name in OPTIONS}
    monkeypatch.setenv(caches.VARIABLE, str(tmp_path / "cache"))
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield tmp_path / "cache" / "xla"
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def networks(folder: Path) -> set[str]:
    """The programs of networks in it."""
    return {path.name for path in folder.glob("*_predict-*-cache")}


def test_segment_runs_what_warmup_compiled(call, kept, tmp_path):
    save_small(tmp_path / "model")
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((96, 96, 3), np.uint8))
    options = "--model", tmp_path / "model", "--batch-size", 1
    assert call("warmup", *options)[0] == 0
    compiled = networks(kept)
    assert compiled
    jax.clear_caches()
    call("segment", tmp_path / "image.png", "--out", tmp_path / "out", "--mpp", 0.25, *options)
    assert (tmp_path / "out" / "image").is_dir()
    assert networks(kept) == compiled


def test_a_folder_that_jax_was_given_stays(kept, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    caches.keep_compiled_programs()
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path)
