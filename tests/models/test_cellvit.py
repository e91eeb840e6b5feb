import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cellvit_jax.errors import InputError
from cellvit_jax.models import ModelConfig
from cellvit_jax.models.cellvit import CellViT
from tests.networks import make, noise, run, small_config


def parameters(config: ModelConfig) -> int:
    model = nnx.eval_shape(lambda: CellViT(config, rngs=nnx.Rngs(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def test_cellvit_256_has_the_published_number_of_parameters():
    assert parameters(ModelConfig.cellvit_256()) == pytest.approx(46.75e6, rel=1e-3)


def test_cellvit_tiny_stays_under_its_limit():
    assert parameters(ModelConfig.cellvit_tiny()) <= 2_500_000


def test_cellvit_nano_is_a_quarter_of_it():
    assert 500_000 <= parameters(ModelConfig.cellvit_nano()) <= 600_000


@pytest.mark.parametrize(("size", "shared"), [((16, 48), False), ((80, 32), True)])
def test_maps_have_the_size_of_the_image(size, shared):
    maps = run(make(small_config(shared_trunk=shared)), noise(2, *size, 3))
    shapes = {name: value.shape for name, value in maps.items()}
    assert shapes == {
        "nuclei_binary_map": (2, *size, 2),
        "hv_map": (2, *size, 2),
        "nuclei_type_map": (2, *size, 3),
        "tissue_types": (2, 3),
    }
    assert all(value.dtype == jnp.float32 for value in maps.values())


def test_tokens_are_the_last_skip_without_its_cls_token():
    maps = run(make(small_config()), noise(1, 32, 48, 3), tokens=True, skips=True)
    assert maps["skip1"].shape == (1, 1 + 2 * 3, 16)
    np.testing.assert_array_equal(maps["tokens"].reshape(1, 6, 16), maps["skip4"][:, 1:])


def test_regression_splits_the_binary_branch():
    maps = run(make(small_config(regression_loss=True, shared_trunk=True)), noise(1, 32, 32, 3))
    assert maps["nuclei_binary_map"].shape == maps["regression_map"].shape == (1, 32, 32, 2)


def test_a_network_without_tissues_has_no_tissue_logits():
    assert "tissue_types" not in run(
        make(small_config(num_tissues=0, shared_trunk=True)), noise(1, 32, 32, 3)
    )


def test_images_of_a_batch_do_not_see_each_other():
    model, images = make(small_config()), noise(3, 32, 32, 3)
    together, alone = run(model, images), run(model, images[1:2])
    for name, value in alone.items():
        np.testing.assert_allclose(together[name][1:2], value, atol=1e-5)


def test_bfloat16_computes_near_float32_and_answers_in_float32():
    config, images = small_config(shared_trunk=True), noise(1, 32, 32, 3)
    half = run(CellViT(config, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)), images)
    for name, value in run(make(config), images).items():
        assert half[name].dtype == jnp.float32
        assert jnp.linalg.norm(half[name] - value) < 0.05 * jnp.linalg.norm(value)


def test_numpy_images_are_fine():
    maps = run(make(small_config()), np.zeros((1, 32, 32, 3), np.float32))
    assert maps["hv_map"].shape == (1, 32, 32, 2)


@pytest.mark.parametrize("shape", [(32, 32, 3), (1, 32, 32, 4), (1, 30, 32, 3), (1, 0, 32, 3)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match=r"\(B, H, W, 3\)|multiples of the patch size 16"):
        run(make(small_config()), np.zeros(shape, np.float32))


def test_a_config_survives_json():
    config = ModelConfig.cellvit_tiny(num_classes=7, drop_path_rate=0.1)
    assert ModelConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"num_heads": 3}, "not divisible by 3 heads"),
        ({"skip_layers": (1, 1, 2, 3)}, "four blocks between 1 and 2"),
        ({"skip_layers": (1, 2, 2)}, "four blocks"),
    ],
)
def test_impossible_configs_are_refused(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        small_config(**fields)


def test_unknown_fields_of_a_config_are_named():
    with pytest.raises(InputError, match="colour"):
        ModelConfig.from_dict(small_config().to_dict() | {"colour": 1})
