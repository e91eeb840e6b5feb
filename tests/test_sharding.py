"""The rules that divide a state among devices, over every network there is."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from cellvit_jax import sharding
from cellvit_jax.errors import InputError
from cellvit_jax.models import ModelConfig
from cellvit_jax.sharding import make_mesh, part_of_batch, place, put_batch
from cellvit_jax.training.recipes import Recipe
from cellvit_jax.training.state import new_layout
from tests.networks import CARD

RECIPE = Recipe(epochs=1, steps_per_epoch=1, batch_size=8)
PRESETS = [name for name in vars(ModelConfig) if name.startswith("cellvit_")]


def spec(leaf) -> P:
    return leaf.sharding.spec


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_divided(preset):
    mesh = make_mesh(fsdp=2, tensor=2)
    layout = new_layout(getattr(ModelConfig, preset)(), CARD, RECIPE, mesh)
    params = layout.abstract.params
    assert spec(params["encoder.blocks.0.attn.proj.kernel"]) == P("tensor", "fsdp")
    assert spec(params["encoder.blocks.0.mlp.fc2.kernel"]) == P("tensor", "fsdp")
    whole = sum(leaf.size for leaf in params.values())
    here = sum(np.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in params.values())
    assert here < 0.52 * whole
    moments = layout.abstract.optimizer[0][0].mu
    assert {name: spec(leaf) for name, leaf in moments.items()} == {
        name: spec(leaf) for name, leaf in params.items()
    }


def test_a_rule_that_matches_nothing_is_an_error():
    abstract = {"a": {"kernel": jax.ShapeDtypeStruct((4, 4), np.float32)}}
    rules = ((r"\.kernle", P("fsdp")), (r".*", P()))
    with pytest.raises(ValueError, match=re.escape(r"\.kernle")):
        place(abstract, make_mesh(), rules)


def test_the_first_rule_counts_and_what_does_not_divide_stays_whole():
    abstract = {
        "kernel": jax.ShapeDtypeStruct((4, 3), np.float32),
        "bias": jax.ShapeDtypeStruct((4,), np.float32),
    }
    rules = ((r"\.kernel", P("fsdp", "tensor")), (r".*", P("tensor")))
    placed = place(abstract, make_mesh(fsdp=4, tensor=2), rules)
    assert spec(placed["kernel"]) == P("fsdp", None)
    assert spec(placed["bias"]) == P("tensor")


def test_a_mesh_has_what_is_left_along_data():
    assert dict(make_mesh(fsdp=2).shape) == {"data": 4, "fsdp": 2, "tensor": 1}
    with pytest.raises(InputError, match="8 devices cannot be divided into groups of 3"):
        make_mesh(fsdp=3)
    with pytest.raises(InputError, match="cannot be divided"):
        make_mesh(tensor=0)


def test_a_batch_is_divided_among_all_but_the_tensor_axis():
    placed = put_batch({"x": np.arange(8.0)}, make_mesh(fsdp=2, tensor=2))["x"]
    np.testing.assert_array_equal(placed, np.arange(8.0))
    assert placed.sharding.shard_shape((8,)) == (2,)
    with pytest.raises(InputError, match="a batch of 6 images cannot be divided among 4 devices"):
        put_batch({"x": np.zeros(6)}, make_mesh(fsdp=2, tensor=2))


@dataclasses.dataclass(frozen=True)
class Place:
    """A device, as far as meshes know it."""

    id: int
    process_index: int


@pytest.mark.parametrize(
    ("host", "fsdp", "tensor", "parts"),
    [(4, 1, 1, 3), (4, 2, 2, 3), (4, 12, 1, 3), (12, 1, 1, 1), (2, 1, 4, 3), (1, 2, 6, 2)],
)
def test_processes_that_tensor_joins_make_the_same_part_of_a_batch(host, fsdp, tensor, parts):
    devices = np.array([Place(i, i // host) for i in range(12)])
    mesh = Mesh(devices.reshape(-1, fsdp, tensor), sharding.AXES)
    assert part_of_batch(mesh) == (0, parts)


def test_parts_of_a_batch_that_overlap_are_an_error():
    devices = np.array([Place(i, i // 4) for i in range(12)])
    with pytest.raises(InputError, match=r"6 devices \(tensor\) are neither"):
        part_of_batch(Mesh(devices.reshape(-1, 1, 6), sharding.AXES))


@pytest.mark.parametrize(
    ("address", "index", "sentence"),
    [
        ("127.0.0.1:8476", 2, "no process 2 of 2: they are counted from 0"),
        ("10.0.0.1", 0, "10.0.0.1 is no HOST:PORT of process 0"),
    ],
)
def test_processes_that_cannot_be_are_one_sentence(address, index, sentence):
    with pytest.raises(InputError, match=sentence):
        sharding.start_processes(address, 2, index)


def test_processes_that_do_not_find_each_other_are_one_sentence():
    with pytest.raises(InputError, match="do not find each other"):
        sharding.start_processes()
