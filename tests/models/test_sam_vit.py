import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, PartitionSpec

from cellvit_jax.errors import InputError
from cellvit_jax.models.sam_vit import Block, crop_positions, from_windows, relative, to_windows
from tests.networks import inference, make, noise, run, small_config

SIDE, WINDOW = 8, 3
CONFIG = small_config(
    encoder="sam", position_grid=SIDE, window_size=WINDOW, global_layers=(2, 4), shared_trunk=True
)


def block(window: int | None) -> Block:
    """A block whose relative positions are not zero, as they are at the start."""
    made = Block(CONFIG, window, 0.0, dtype=jnp.float32, rngs=nnx.Rngs(0))
    for seed, table in enumerate((made.attn.rel_pos_h, made.attn.rel_pos_w)):
        table[...] = noise(*table.shape, seed=seed)
    return made


@pytest.mark.parametrize("grid", [(3, 3), (6, 9), (7, 5), (1, 10)])
def test_windows_and_back(grid):
    x = noise(2, *grid, 4)
    windows = to_windows(x, WINDOW)
    assert windows.shape == (2 * -(-grid[0] // 3) * -(-grid[1] // 3), 3, 3, 4)
    np.testing.assert_array_equal(from_windows(windows, x.shape), x)
    assert jnp.sum(windows != 0) == x.size


def test_windows_are_taken_row_by_row():
    windows = to_windows(noise(2, 6, 7, 4), WINDOW)
    np.testing.assert_array_equal(windows[1], noise(2, 6, 7, 4)[0, :3, 3:6])
    np.testing.assert_array_equal(windows[6 + 3], noise(2, 6, 7, 4)[1, 3:, :3])


def test_relative_positions_are_looked_up_by_distance():
    table = noise(2 * 5 - 1, 4)
    found = relative(table, 5)
    assert found.shape == (5, 5, 4)
    for query, key in [(0, 0), (0, 4), (4, 0), (2, 3)]:
        np.testing.assert_array_equal(found[query, key], table[query - key + 4])


def test_tables_of_another_length_are_resized_linearly():
    table = jnp.arange(15.0).reshape(15, 1)
    found = relative(table, 3)[:, :, 0]
    # five points, three apart, the middle one in the middle; no average over the points between
    np.testing.assert_allclose(found, [[7, 4, 1], [10, 7, 4], [13, 10, 7]], atol=1e-5)


@pytest.mark.parametrize(("window", "reaches"), [(WINDOW, False), (None, True)])
def test_a_window_sees_itself_alone(window, reaches):
    x, attend = noise(1, 6, 6, 16), jax.jit(block(window).__call__)
    changed = attend(x.at[0, 0, 0, 0].add(1.0)) - attend(x)
    moved = np.abs(np.asarray(changed)).max((0, 3)) > 0
    assert moved[:3, :3].all()
    assert moved[3:].any() == moved[:, 3:].any() == reaches


@pytest.mark.parametrize("size", [(48, 96), (128, 16)])
def test_images_need_not_be_square(size):
    maps = run(make(CONFIG), noise(2, *size, 3), tokens=True, skips=True)
    assert maps["hv_map"].shape == (2, *size, 2)
    assert maps["tokens"].shape == (2, size[0] // 16, size[1] // 16, 16)
    np.testing.assert_array_equal(maps["tokens"].reshape(maps["skip4"].shape), maps["skip4"])
    assert maps["tissue_types"].shape == (2, 3)


def test_positions_are_cropped_not_resized():
    positions = noise(1, SIDE, SIDE, 4)
    np.testing.assert_array_equal(crop_positions(positions, (3, 8)), positions[:, :3])


def test_more_patches_than_positions_are_refused():
    with pytest.raises(InputError, match="positions for 8×8 patches, the image has 9×2"):
        run(make(CONFIG), np.zeros((1, 144, 32, 3), np.float32))


def test_the_tissue_head_can_be_left_out():
    maps = run(make(small_config(**(CONFIG.__dict__ | {"num_tissues": 0}))), noise(1, 32, 32, 3))
    assert "tissue_types" not in maps


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_a_batch_can_be_spread_over_devices(kind):
    images, encoder = noise(8, 64, 80, 3), inference(make(CONFIG)).encoder
    alone = jax.jit(lambda m, x: m(x))(encoder, images)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        spread = jax.jit(lambda m, x: m(x))(
            jax.device_put(encoder, PartitionSpec()), jax.device_put(images, PartitionSpec("data"))
        )
    assert spread.skips[3].sharding.spec[0] == "data"
    np.testing.assert_allclose(spread.skips[3], alone.skips[3], atol=1e-4)
    np.testing.assert_allclose(spread.tissue, alone.tissue, atol=1e-4)
