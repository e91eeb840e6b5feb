"""Which device holds what. The only module that speaks of meshes and partitions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cellvit_jax.errors import InputError

P = PartitionSpec
BATCH = "batch"
# of a mesh to train on: images are divided along the first two, weights along the last two
AXES = ("data", "fsdp", "tensor")
Rules = Sequence[tuple[str, PartitionSpec]]
Tree = TypeVar("Tree")

# ordered (pattern at the end of a leaf's dotted path, partition); the first match counts
BLOCKS: Rules = (
    # whole along "tensor": no half of three joined thirds has whole heads; `proj` divides these
    (r"\.qkv\.kernel", P("fsdp")),
    (r"\.fc1\.kernel", P("fsdp", "tensor")),
    (r"\.fc1\.bias", P("tensor")),
    (r"\.(proj|fc2)\.kernel", P("tensor", "fsdp")),
    (r"encoder\.patch_embed\.kernel", P(None, None, None, "fsdp")),
)
ENCODERS: dict[str, Rules] = {
    "vit": (*BLOCKS, (r"\.pos_embed", P(None, None, "fsdp"))),
    "sam": (
        *BLOCKS,
        (r"\.pos_embed", P(None, None, None, "fsdp")),
        (r"\.neck\.layers\.[02]\.kernel", P(None, None, "fsdp")),
    ),
    "dinov2": (*BLOCKS, (r"\.pos_embed", P(None, None, "fsdp"))),
}
DECODER: Rules = ((r"\.(conv|up[1-4]?)\.kernel", P(None, None, None, "fsdp")),)
REST: Rules = ((r".*", P()),)  # norms, other biases, heads, counters: small


def rules(encoder: str, *, decoder: bool) -> Rules:
    """Those of a network with that kind of encoder, under a decoder or alone."""
    return (*ENCODERS[encoder], *(DECODER if decoder else ()), *REST)


def over_batch(count: int) -> tuple[NamedSharding, NamedSharding]:
    """For arrays whose first axis is divided among `count` local devices, and for copied ones."""
    mesh = Mesh(np.array(jax.local_devices()[:count]), (BATCH,))
    return NamedSharding(mesh, P(BATCH)), NamedSharding(mesh, P())


def make_mesh(
    *, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh of all devices of all processes, or of those given.

    Weights are divided among `fsdp` devices and brought together where they are used; the products
    of the encoder are divided among `tensor` devices. What is left of the devices holds copies
    that look at other images ("data"). Raises `InputError` where the numbers do not divide.
    """
    devices = jax.devices() if devices is None else devices
    if min(fsdp, tensor) < 1 or len(devices) % (fsdp * tensor):
        raise InputError(
            f"{len(devices)} devices cannot be divided into groups of {fsdp} (fsdp) × {tensor} "
            "(tensor)"
        )
    sizes = (len(devices) // (fsdp * tensor), fsdp, tensor)
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def start_processes(
    address: str | None = None, count: int | None = None, index: int | None = None
) -> None:
    """Join the processes of a run on many hosts; every one calls this before it uses a device.

    `address` (host:port) is that of process 0, `count` how many there are, `index` which this is.
    On TPU pods and under Slurm all three are found out. Raises `InputError` where they cannot be.
    """
    if address is not None and not re.fullmatch(r".+:\d+", address):
        raise InputError(f"{address} is no HOST:PORT of process 0, such as 10.0.0.1:8476")
    if index is not None and count is not None and not 0 <= index < count:
        raise InputError(f"there is no process {index} of {count}: they are counted from 0")
    try:
        jax.distributed.initialize(address, count, index)
    except ValueError as error:
        raise InputError(
            f"this is no TPU pod, and not under Slurm or Open MPI, which would say what hosts "
            f"there are ({error}): give --coordinator HOST:PORT --processes N --process I"
        ) from error
    except RuntimeError as error:
        raise InputError(f"the processes do not find each other: {error}") from error


def place(abstract: Tree, mesh: Mesh, rules: Rules) -> Tree:
    """The abstract tree with a sharding on each leaf: that of the first rule for its path.

    An axis of the mesh that does not divide a dimension leaves it whole. A rule that is the first
    for no leaf raises `ValueError`: it is misspelt, or stands behind one that takes all.
    """
    used = set()

    def placed(path: Any, leaf: Any) -> jax.ShapeDtypeStruct:
        name = "." + jax.tree_util.keystr(path, simple=True, separator=".")
        index = next(i for i, (end, _) in enumerate(rules) if re.search(f"(?:{end})$", name))
        used.add(index)
        sharding = NamedSharding(mesh, fitting(rules[index][1], leaf.shape, mesh))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    tree = jax.tree_util.tree_map_with_path(placed, abstract)
    idle = [rule for i, rule in enumerate(rules) if i not in used]
    if idle:
        raise ValueError(f"sharding rules that match nothing: {idle}")
    return tree


def fitting(spec: PartitionSpec, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """The partition without axes that do not divide a dimension."""
    return P(
        *(
            axis if axis is not None and size % mesh.shape[axis] == 0 else None
            for axis, size in zip(spec, shape, strict=False)
        )
    )


def gathered(arrays: Tree, shardings: Tree) -> Tree:
    """Inside a compiled program, arrays with those shardings, brought together along "fsdp".

    Without it XLA may rather move the activations, which are many times larger.
    """

    def gather(array: jax.Array, sharding: NamedSharding) -> jax.Array:
        spec = P(*(None if axis == "fsdp" else axis for axis in sharding.spec))
        return jax.lax.with_sharding_constraint(array, NamedSharding(sharding.mesh, spec))

    return jax.tree.map(gather, arrays, shardings)


@cache
def part_of_batch(mesh: Mesh) -> tuple[int, int]:
    """Which part of every batch this process makes, and how many parts there are.

    It is its devices' part. Processes that "tensor" joins look at the same images, and make the
    same part. Raises `InputError` where the parts of two processes overlap.
    """
    groups = mesh.devices.reshape(-1, mesh.shape["tensor"])
    held: dict[int, list[int]] = {}
    for number, group in enumerate(groups):
        for process in {device.process_index for device in group}:
            held.setdefault(process, []).append(number)
    parts = sorted({tuple(numbers) for numbers in held.values()})
    if any(len(part) * len(parts) != len(groups) for part in parts):
        raise InputError(
            f"{groups.shape[1]} devices (tensor) are neither a part of a host's nor whole hosts'"
        )
    return parts.index(tuple(held[jax.process_index()])), len(parts)


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's part of a batch as a part of the whole one, divided among the devices.

    With n parts (`part_of_batch`) the whole batch has n times as many images. Raises `InputError`
    where they cannot be divided among the devices.
    """
    sharding = NamedSharding(mesh, P(AXES[:2]))
    size = len(next(iter(batch.values()))) * part_of_batch(mesh)[1]
    groups = mesh.shape["data"] * mesh.shape["fsdp"]
    if size % groups:
        raise InputError(f"a batch of {size} images cannot be divided among {groups} devices")
    return {
        name: jax.make_array_from_process_local_data(sharding, values)
        for name, values in batch.items()
    }
