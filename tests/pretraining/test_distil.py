"""What a student learns from a teacher: the losses, and one step on many devices."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

pytest.importorskip("grain")

from cellvit_jax import checkpoint
from cellvit_jax.errors import InputError
from cellvit_jax.pretraining import teacher as teachers
from cellvit_jax.pretraining.distil import (
    Distillation,
    Losses,
    feature_loss,
    resampled,
    soft_divergence,
    whitened,
)
from cellvit_jax.pretraining.teacher import Seen
from cellvit_jax.sharding import make_mesh, put_batch
from cellvit_jax.training.recipes import Recipe, Schedule
from cellvit_jax.training.state import Layout, begin, new_layout
from cellvit_jax.training.step import make_step
from tests.networks import CARD, save_encoder, save_head, save_small, save_small_sam, small_config
from tests.training.runs import float64

ONE = make_mesh(devices=jax.devices()[:1])
STUDENT = small_config(embed_dim=8, shared_trunk=True, num_tissues=0)
RECIPE = Recipe(epochs=3, steps_per_epoch=1, batch_size=8, schedule=Schedule(peak=1e-3))


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A teacher with a width of its own, a tissue head and tokens of half the student's side."""
    path = tmp_path_factory.mktemp("teacher") / "small"
    save_small(path, patch_size=8)
    return path


def images(step: int = 0) -> np.ndarray:
    return np.random.default_rng(step).integers(0, 256, (8, 32, 32, 3), np.uint8)


def student_on(
    mesh,
    folder,
    *,
    losses: Losses | None = None,
    dtype: Any = "float32",
    teacher_dtype: Any = None,
) -> Layout:
    losses = Losses() if losses is None else losses
    recipe = Recipe(**(vars(RECIPE) | {"dtype": dtype}))
    teacher = teachers.load(folder, mesh, maps=losses.maps, dtype=teacher_dtype or dtype)
    task = Distillation(STUDENT, recipe, teacher, losses)
    return new_layout(STUDENT, CARD, recipe, mesh, task)


def test_soft_divergence_is_the_sum_over_pixels_and_classes():
    logits, target, temperature = noise(2, 3, 4, 5), noise(2, 3, 4, 5, seed=1), 3.0
    found = []
    for student, teacher in zip(logits.reshape(-1, 5), target.reshape(-1, 5), strict=True):
        q, p = (np.exp(z / temperature) / np.exp(z / temperature).sum() for z in (student, teacher))
        found.append(sum(p[i] * np.log(p[i] / q[i]) for i in range(5)))
    loss = soft_divergence(jnp.asarray(logits), jnp.asarray(target), temperature)
    assert float(loss) == pytest.approx(9 * np.mean(found), rel=1e-5)
    assert float(soft_divergence(jnp.asarray(target), jnp.asarray(target), 3.0)) == 0


def test_features_are_compared_with_standardised_tokens():
    students, taught = noise(4, 2, 3, 3, 5), 7 + 3 * noise(4, 2, 3, 3, 5, seed=1)
    found = []
    for z, t in zip(students.reshape(-1, 5), taught.reshape(-1, 5), strict=True):
        found.append(np.mean((z - (t - t.mean()) / t.std()) ** 2))
    loss = feature_loss(*(tuple(map(jnp.asarray, each)) for each in (students, taught)))
    assert float(loss) == pytest.approx(np.mean(found), rel=1e-4)
    np.testing.assert_allclose(whitened(jnp.ones((1, 4))), 0)  # no variance, no division by it


@pytest.mark.parametrize(("side", "new"), [(4, 8), (6, 3), (18, 16), (5, 5)])
def test_a_grid_is_resampled_linearly_in_both_directions(side, new):
    grid = noise(1, side, side, 2)
    scale = max(1.0, side / new)  # the triangle widens where the grid gets smaller
    weights = np.zeros((new, side))
    for i in range(new):
        centre = (i + 0.5) * side / new - 0.5
        weights[i] = [max(0.0, 1 - abs(j - centre) / scale) for j in range(side)]
    weights /= weights.sum(1, keepdims=True)
    expected = np.einsum("ih,jw,bhwc->bijc", weights, weights, grid)
    np.testing.assert_allclose(resampled(jnp.asarray(grid), (new, new)), expected, atol=1e-5)


def test_the_terms_are_those_of_the_maps_and_only_those_that_count(folder):
    """By NumPy alone, from what two networks say."""
    grids = [tuple(jnp.asarray(noise(1, 2, 2, 6, seed=s + i)) for i in range(4)) for s in (0, 9)]
    shapes = {"nuclei_binary_map": 2, "hv_map": 2, "nuclei_type_map": 3}
    maps = [
        {name: jnp.asarray(noise(1, 4, 4, n, seed=seed + n)) for name, n in shapes.items()}
        for seed in (20, 30)
    ]
    student, teacher = (Seen(*pair) for pair in zip(grids, maps, strict=True))
    task = student_on(ONE, folder).task
    assert isinstance(task, Distillation)
    terms = task.terms(student, teacher)
    assert set(terms) == {"features", "found", "binary", "types"}
    said = {name: np.asarray(values) for name, values in maps[1].items()}
    batch = {
        "nuclei": said["nuclei_binary_map"][..., 1] > said["nuclei_binary_map"][..., 0],
        "hv": said["hv_map"],
        "types": said["nuclei_type_map"].argmax(-1),
        "typed": np.ones(1),
    }
    weighted = RECIPE.objective.terms(maps[0], batch)
    expected = sum(getattr(RECIPE.objective, name) * value for name, value in weighted.items())
    assert float(terms["found"]) == pytest.approx(float(expected), rel=1e-5)
    some = Distillation(STUDENT, RECIPE, task.teacher, Losses(types=0.0, features=0.0))
    few = some.terms(student, teacher)
    assert set(few) == {"found", "binary"}
    untyped = {name: value for name, value in weighted.items() if not name.startswith("type")}
    expected = sum(getattr(RECIPE.objective, name) * value for name, value in untyped.items())
    assert float(few["found"]) == pytest.approx(float(expected), rel=1e-5)


def test_a_teacher_that_finds_nothing_teaches_that(folder):
    grids = tuple(jnp.asarray(noise(1, 2, 2, 6, seed=i)) for i in range(4))
    nothing = jnp.asarray([9.0, -9.0, -9.0])
    empty = {
        "nuclei_binary_map": jnp.broadcast_to(nothing[:2], (1, 8, 8, 2)),
        "hv_map": jnp.zeros((1, 8, 8, 2)),
        "nuclei_type_map": jnp.broadcast_to(nothing, (1, 8, 8, 3)),
    }
    task = student_on(ONE, folder).task
    assert isinstance(task, Distillation)
    terms = jax.jit(task.terms)
    agreed = terms(Seen(grids, empty), Seen(grids, empty))
    assert all(np.isfinite(value) for value in agreed.values())
    other = {name: jnp.asarray(noise(*value.shape)) for name, value in empty.items()}
    for name, value in terms(Seen(grids, other), Seen(grids, empty)).items():
        assert np.isfinite(value)
        assert name == "features" or value > agreed[name]


def test_a_teacher_sees_what_its_network_sees(folder):
    pixels = images()[:2]
    model = checkpoint.load(folder)
    maps = model(pixels / np.float32(255) * 2 - 1, skips=True)
    teacher = teachers.load(folder, make_mesh(fsdp=2, tensor=2), maps=True, dtype="float32")
    seen = jax.jit(teacher)(teacher.weights, pixels)
    for name, values in seen.maps.items():
        np.testing.assert_allclose(values, maps[name], atol=1e-4)
    for i, grid in enumerate(seen.skips, 1):
        assert grid.shape == (2, 4, 4, 16)
        np.testing.assert_allclose(grid.reshape(2, 16, 16), maps[f"skip{i}"][:, 1:], atol=1e-4)
    kernel = teacher.weights["encoder.blocks.0.mlp.fc1.kernel"]
    assert {part.data.shape for part in kernel.addressable_shards} == {(8, 32)}


@pytest.mark.slow
def test_in_bfloat16_kernels_are_held_as_they_are_used(folder):
    pixels = images()[:2]
    teacher = teachers.load(folder, ONE, maps=True, dtype="bfloat16")
    assert {leaf.dtype.name for leaf in teacher.weights.values()} == {"bfloat16", "float32"}
    model = checkpoint.load(folder, dtype=jnp.bfloat16)
    see = jax.jit(lambda model, x: teachers.see(model, x, maps=True))
    found, expected = jax.jit(teacher)(teacher.weights, pixels), see(model, pixels)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["vit", "sam", "sam-med2d"])
def test_an_encoder_alone_teaches_the_quarters_of_its_depth(tmp_path, kind):
    save = save_encoder if kind == "vit" else save_small_sam
    fields = {"vit": {"depth": 8}, "sam": {"depth": 4}, "sam-med2d": {"depth": 4, "adapters": True}}
    save(tmp_path / "encoder", **fields[kind])
    teacher = teachers.load(tmp_path / "encoder", ONE, maps=False, dtype="float32")
    assert teacher.config.skip_layers == ((2, 4, 6, 8) if kind == "vit" else (1, 2, 3, 4))
    seen = jax.jit(teacher)(teacher.weights, images()[:1])
    assert [grid.shape[:3] for grid in seen.skips] == [(1, 2, 2)] * 4
    assert not seen.maps
    with pytest.raises(InputError, match="has no maps to learn from"):
        teachers.load(tmp_path / "encoder", ONE, maps=True, dtype="float32")


def test_a_teacher_needs_an_encoder(tmp_path):
    save_head(tmp_path / "head", 16)
    with pytest.raises(InputError, match="no encoder"):
        teachers.find(tmp_path / "head", maps=False)


@pytest.mark.slow
def test_a_sam_in_bfloat16_teaches_a_student_in_float32_on_many_devices(tmp_path):
    save_small_sam(tmp_path / "sam", depth=4, adapters=True)
    losses, found = Losses.of_features(), []
    for mesh, dtype in ((ONE, "float32"), (make_mesh(fsdp=2, tensor=2), "bfloat16")):
        layout = student_on(mesh, tmp_path / "sam", losses=losses, teacher_dtype=dtype)
        assert layout.task.given["teacher"]["encoder.blocks.0.mlp.fc1.kernel"].dtype == dtype
        state = begin(layout)
        widen, encoder = (
            np.asarray(state.params[name])
            for name in ("widen.0.kernel", "encoder.blocks.0.mlp.fc1.kernel")
        )
        batch = {**put_batch({"image": images()}, layout.mesh), **layout.task.given}
        state, metrics = make_step(layout, encoder_rests=False)(state, batch)
        assert (state.params["widen.0.kernel"] != widen).all()
        assert (state.params["encoder.blocks.0.mlp.fc1.kernel"] != encoder).any()
        assert {leaf.dtype.name for leaf in jax.tree.leaves(state.params)} == {"float32"}
        found.append(float(metrics["loss"]))
    # bfloat16 has two to three digits
    assert found[1] == pytest.approx(found[0], rel=1e-2)
    assert found[1] != found[0]


def three(layout: Layout) -> SimpleNamespace:
    """Three steps: losses, and what came of student and teacher."""
    step = make_step(layout, encoder_rests=False)
    batches = [
        {**put_batch({"image": images(i)}, layout.mesh), **layout.task.given} for i in range(3)
    ]
    compiled = step.lower(layout.abstract, batches[0]).compile()
    state, losses = begin(layout), []
    for batch in batches:
        state, metrics = compiled(state, batch)
        losses.append({name: float(value) for name, value in metrics.items()})
    return SimpleNamespace(losses=losses, state=state, given=layout.task.given["teacher"])


@pytest.mark.slow
def test_many_devices_are_as_one_and_the_teacher_stays_as_it_is(folder):
    with float64():
        found = [
            three(student_on(mesh, folder, dtype="float64"))
            for mesh in (ONE, make_mesh(fsdp=2, tensor=2))
        ]
    alone, together = (one.losses for one in found)
    for row, other in zip(alone, together, strict=True):
        assert other == pytest.approx(row, rel=1e-9)
    first = alone[0]
    terms = {
        name: getattr(Losses(), name) * first[name] for name in Losses().__dict__ if name in first
    }
    assert first["loss"] == pytest.approx(sum(terms.values()), rel=1e-9)
    assert set(terms) == {"features", "found", "binary", "types"}
    stored = nnx.to_pure_dict(nnx.state(checkpoint.load(folder), checkpoint.WEIGHTS))
    for one in found:
        for name, value in checkpoint.leaves(stored).items():
            np.testing.assert_array_equal(np.asarray(one.given[name]), np.asarray(value))
    assert "widen.0.kernel" in found[0].state.params
    assert not any(name in found[0].state.params for name in ("teacher", "teacher.encoder"))
