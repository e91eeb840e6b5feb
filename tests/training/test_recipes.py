"""What recipes say, and what optax makes of it."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cellvit_jax.data.augment import Augmentation
from cellvit_jax.data.sampling import Sampling
from cellvit_jax.errors import InputError
from cellvit_jax.training import recipes
from cellvit_jax.training.optimizer import learning_rate, optimizer
from cellvit_jax.training.recipes import Recipe, Schedule

RECIPE = Recipe(epochs=10, steps_per_epoch=10, batch_size=1)
PARAMS = {
    "encoder.blocks.0.attn.qkv.kernel": jnp.ones((2, 3)),
    "encoder.head.bias": jnp.ones(3),
    "heads.hv_map.bias": jnp.ones(2),
}

# of Hörst et al. 2024, and of what the originals' trainer does
PUBLISHED = {
    "batch_size": 16,
    "accumulate": 1,
    "tile": 256,
    "betas": (0.85, 0.95),
    "weight_decay": 1e-4,
    "clip_norm": None,
    "ema_decay": None,
    "drop_path_rate": 0.1,
    "attention_drop_rate": 0.1,
    "dtype": "bfloat16",
    "sampling": Sampling("tissue+cell", gamma=0.85),
    "augmentation": Augmentation.published(),  # its values: `training_data/test_augment.py`
}
PUBLISHED_LOSSES = {
    "binary_focal_tversky": 1,
    "binary_dice": 1,
    "hv_mse": 2.5,
    "hv_msge": 8,
    "type_cross_entropy": 0.5,
    "type_dice": 0.2,
    "type_focal_tversky": 0.5,
    "tissue_cross_entropy": 0.1,
    "regression_mse": 1,  # of a map that the published networks have not
    "class_weights": (),
    "double_softmax": True,
}


def rates(at: list[int], accumulate: int = 1, **fields) -> list[float]:
    schedule = Schedule(peak=1e-3, **fields)
    rate = learning_rate(dataclasses.replace(RECIPE, schedule=schedule, accumulate=accumulate))
    return [float(rate(update)) for update in at]


@pytest.mark.parametrize("name", ["pannuke", "finetune", "demo"])
def test_recipes_are_plain_values(name):
    recipe = getattr(recipes, name)()
    assert json.loads(json.dumps(dataclasses.asdict(recipe)))["epochs"] == recipe.epochs
    assert hash(recipe) == hash(getattr(recipes, name)())


def test_the_published_recipe_is_the_published_one():
    recipe = recipes.pannuke().over(2656)
    assert recipe.steps == 130 * 166
    assert recipe.encoder_rests(25 * 166 - 1)
    assert not recipe.encoder_rests(25 * 166)
    rate = learning_rate(recipe)
    np.testing.assert_allclose([rate(165), rate(166), rate(331)], [3e-4, 2.85e-4, 2.85e-4])
    assert vars(recipe).items() >= PUBLISHED.items()
    assert dataclasses.asdict(recipe.objective) == PUBLISHED_LOSSES


def test_cudnn_attention_has_no_dropout():
    with pytest.raises(InputError, match="attention_drop_rate=0"):
        dataclasses.replace(recipes.pannuke(), attention="cudnn")
    assert dataclasses.replace(recipes.pannuke(), attention="cudnn", attention_drop_rate=0.0)


def test_an_epoch_looks_at_as_many_images_as_there_are():
    recipe = Recipe(epochs=2, batch_size=4)
    assert recipe.over(9).steps_per_epoch == 3
    assert recipe.over(9).steps == 6
    assert RECIPE.over(999) == RECIPE


def test_the_rate_warms_up_stays_and_falls_to_zero():
    found = rates([0, 5, 10, 72, 86, 100], warmup_steps=10, decay_share=0.3)
    np.testing.assert_allclose(found, [0, 5e-4, 1e-3, 1e-3, 14 / 27 * 1e-3, 0], atol=1e-9)


def test_the_rate_falls_exponentially_by_epochs():
    found = rates([0, 9, 10, 25], kind="exponential", factor=0.5)
    np.testing.assert_allclose(found, [1e-3, 1e-3, 5e-4, 2.5e-4])


def test_the_rate_falls_along_a_cosine():
    np.testing.assert_allclose(rates([0, 50, 100], kind="cosine"), [1e-3, 5e-4, 0], atol=1e-9)


def test_accumulated_steps_count_once():
    found = rates([0, 1, 2, 26], accumulate=4, kind="cosine", warmup_steps=8)
    np.testing.assert_allclose(found[:3], [0, 5e-4, 1e-3], atol=1e-9)
    assert found[3] == 0


def moved(recipe: Recipe, grads: list[float], **kwargs) -> dict[str, np.ndarray]:
    """How far each parameter has come after updates by constant gradients."""
    params, transform = PARAMS, optimizer(recipe, encoder_rests=False)
    state = transform.init(params)
    update = optimizer(recipe, **kwargs).update
    for value in grads:
        gradient = {name: jnp.full_like(leaf, value) for name, leaf in params.items()}
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return {name: np.abs(params[name] - PARAMS[name]) for name in params}


def test_every_parameter_decays():
    decaying = dataclasses.replace(RECIPE, schedule=Schedule(peak=0.1), weight_decay=1.0)
    for change in moved(decaying, [0.0], encoder_rests=False).values():
        np.testing.assert_allclose(change, 0.1, rtol=1e-5)


def test_a_resting_encoder_stays_but_for_its_tissue_head():
    frozen = dataclasses.replace(RECIPE, unfreeze_epoch=2)
    change = moved(frozen, [1.0, 1.0], encoder_rests=True)
    assert not change["encoder.blocks.0.attn.qkv.kernel"].any()
    assert change["encoder.head.bias"].all()
    assert change["heads.hv_map.bias"].all()


def test_a_thawed_encoder_starts_at_the_rate_of_that_time():
    schedule = Schedule(kind="exponential", peak=1e-3, factor=0.5)
    thawed = dataclasses.replace(RECIPE, unfreeze_epoch=2, schedule=schedule, weight_decay=0.0)
    change = moved(thawed, [1.0], encoder_rests=False)
    assert change["encoder.blocks.0.attn.qkv.kernel"] == pytest.approx(2.5e-4, rel=1e-3)
    assert change["heads.hv_map.bias"] == pytest.approx(1e-3, rel=1e-3)


def test_accumulation_moves_once_by_the_mean():
    twice = dataclasses.replace(RECIPE, accumulate=2)
    assert not any(c.any() for c in moved(twice, [3.0], encoder_rests=False).values())
    found, wanted = (
        moved(recipe, grads, encoder_rests=False)
        for recipe, grads in ((twice, [3.0, 1.0]), (RECIPE, [2.0]))
    )
    for name in found:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5)


def test_the_norm_of_the_gradient_is_clipped():
    fields = {"betas": (0.0, 0.999), "weight_decay": 0.0}
    clipped = dataclasses.replace(RECIPE, clip_norm=1e-8, **fields)
    free = dataclasses.replace(RECIPE, **fields)
    name = "heads.hv_map.bias"
    # as small as AdamW's epsilon, a gradient moves less than the rate
    assert moved(clipped, [5.0], encoder_rests=False)[name].max() < 2e-4
    assert moved(free, [5.0], encoder_rests=False)[name].min() > 2.9e-4
