"""Which device holds what. The only module that speaks of meshes and partitions."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

BATCH = "batch"


def over_batch(count: int) -> tuple[NamedSharding, NamedSharding]:
    """For arrays whose first axis is divided among `count` local devices, and for copied ones."""
    mesh = Mesh(np.array(jax.local_devices()[:count]), (BATCH,))
    return NamedSharding(mesh, PartitionSpec(BATCH)), NamedSharding(mesh, PartitionSpec())
