"""Foundation encoders as their files name them, narrow and shallow."""

import re

import numpy as np

from tests.parity.synthetic import draw, manifest

DEPTH, HEADS = 4, 2
VIRCHOW = {1280: 160, 3840: 480, 6832: 854, 3416: 427}
# the CellViT whose manifest has an encoder's names, and what replaces each of its sizes
PUBLISHED = {
    "hipt": ("cellvit-256", {384: 128, 1152: 384, 1536: 512}),
    "uni": ("cellvit-uni", {1024: 128, 3072: 384, 4096: 512}),
    "virchow": ("cellvit-virchow", VIRCHOW),
    "virchow2": ("cellvit-virchow2", VIRCHOW),
    "sam": ("cellvit-sam-b", {768: 128, 2304: 384, 3072: 512}),
}


def state(name: str, prefix: str = "", seed: str = "") -> dict[str, np.ndarray]:
    """The first blocks of an encoder; every value is drawn from its key, behind the seed."""
    model, sizes = PUBLISHED[name]
    found = {}
    for key, (shape, dtype) in manifest(model).items():
        block = re.match(r"encoder\.blocks\.(\d+)", key)
        if of_encoder(key) and not (block and int(block[1]) >= DEPTH):
            narrow = tuple(sizes.get(n, n) for n in shape)
            found[prefix + key.removeprefix("encoder.")] = draw(seed + key, narrow, dtype)
    return found


def whole(model: str, prefix: str = "") -> dict[str, np.ndarray]:
    """The encoder of a recorded model in its own size, all zeros."""
    return {
        prefix + key.removeprefix("encoder."): np.zeros(shape, dtype)
        for key, (shape, dtype) in manifest(model).items()
        if of_encoder(key)
    }


def of_encoder(key: str) -> bool:
    return key.startswith("encoder.") and not key.startswith("encoder.head.")
