"""What `cellvit-jax info` prints."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform

import jax

from cellvit_jax import __version__, caches, zoo

PACKAGES = (
    "jax",
    "flax",
    "orbax-checkpoint",
    "numpy",
    "numba",
    "opencv-python-headless",
    "pyarrow",
)
# extra -> the module that shows that it is installed
EXTRAS = {
    "anndata": "anndata",
    "spatialdata": "spatialdata",
    "cluster": "distributed",
    "export": "flatbuffers",
    "slides": "openslide",
    "tiff": "imagecodecs",
    "train": "grain",
}


def describe() -> str:
    """Versions, devices, extras, bundled models and folders, a line each."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    devices = ", ".join(
        f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices()
    )
    extras = ", ".join(
        f"{extra} {'yes' if importlib.util.find_spec(module) else 'no'}"
        for extra, module in EXTRAS.items()
    )
    lines = {
        "cellvit-jax": __version__,
        "python": platform.python_version(),
        "packages": versions,
        "devices": devices,
        "extras": extras,
        "models": ", ".join(zoo.BUNDLED),
        "cache": f"{caches.folder()} (set {caches.VARIABLE} to move it)",
    }
    return "\n".join(f"{name:12} {value}" for name, value in lines.items())
