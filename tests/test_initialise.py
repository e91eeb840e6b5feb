"""New networks over known encoders: never a random encoder, always a fresh decoder."""

import jax
import numpy as np
import pytest
from flax import nnx

import cellvit_jax as cj
from cellvit_jax import checkpoint, initialise
from cellvit_jax.errors import CheckpointError, InputError, OutputError
from cellvit_jax.models import (
    CellClassifier,
    CellViT,
    Encoder,
    EncoderConfig,
    HeadConfig,
    ModelConfig,
    SamConfig,
)
from tests.networks import (
    CARD,
    ENCODER_CARD,
    FOUR,
    encoder_config,
    noise,
    run,
    save_encoder,
    save_small,
    save_small_sam,
    small_config,
)

CONFIG = small_config(**FOUR, shared_trunk=True, drop_rate=0.1)
NAMES = {"classes": ("Round", "Long"), "tissues": ("Colon", "Skin", "Lung")}


def weights(model: nnx.Module) -> dict[str, np.ndarray]:
    leaves = checkpoint.leaves(nnx.to_pure_dict(nnx.state(model, checkpoint.WEIGHTS)))
    return {name: np.asarray(leaf) for name, leaf in leaves.items()}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("encoder") / "enc")


@pytest.mark.parametrize("kind", ["vit", "sam", "dinov2"])
def test_every_leaf_of_the_encoder_is_the_sources(kind, tmp_path):
    path = save_encoder(tmp_path / "enc", encoder=kind)
    config = CONFIG if kind == "vit" else small_config(**FOUR, shared_trunk=True, encoder=kind)
    model = cj.new_model(config, encoder=path)
    source, found = weights(cj.load(path)), weights(model)
    inside = {n for n in found if n.startswith("encoder.") and not n.startswith("encoder.head.")}
    assert source.keys() == inside
    for name, leaf in source.items():
        np.testing.assert_array_equal(found[name], leaf, strict=True)


def test_everything_else_is_drawn_from_the_seed(encoder):
    one, same, other = (
        weights(cj.new_model(CONFIG, encoder=encoder, seed=seed)) for seed in (1, 1, 2)
    )
    fresh = [n for n in one if not n.startswith("encoder.") or n.startswith("encoder.head.")]
    kernels = [name for name in fresh if name.endswith("kernel")]
    assert "encoder.head.kernel" in kernels
    assert all((one[name] == same[name]).all() for name in fresh)
    assert all((one[name] != other[name]).any() for name in kernels)


def test_a_new_model_is_as_one_made_at_once_but_for_its_encoder(encoder):
    model = cj.new_model(CONFIG, encoder=encoder, seed=3)
    plain, found = CellViT(CONFIG, rngs=nnx.Rngs(jax.random.key(3))), weights(model)
    plain.card = model.card
    assert nnx.graphdef(model) == nnx.graphdef(plain)
    for name, leaf in weights(plain).items():
        if not name.startswith("encoder.") or name.startswith("encoder.head."):
            np.testing.assert_allclose(found[name], leaf, atol=1e-6)
    assert np.isfinite(run(model, noise(1, 32, 48, 3))["hv_map"]).all()


def test_a_cellvit_gives_its_encoder_too(tmp_path):
    source = save_small(tmp_path / "model", **FOUR, shared_trunk=True, num_tissues=5)
    model = cj.new_model(CONFIG, encoder=tmp_path / "model")
    np.testing.assert_array_equal(
        model.encoder.blocks[3].mlp.fc2.kernel[...], source.encoder.blocks[3].mlp.fc2.kernel[...]
    )
    assert model.encoder.head.kernel.shape == (16, 3)
    again = cj.new_model(encoder=tmp_path / "model", **NAMES)
    assert again.config == small_config(**FOUR, shared_trunk=True)


def test_a_whole_sam_gives_its_image_encoder(tmp_path):
    source = save_small_sam(tmp_path / "sam", adapters=True)
    config = small_config(
        embed_dim=32,
        encoder="sam",
        global_layers=(2,),
        window_size=3,
        adapters=True,
        shared_trunk=True,
    )
    model = cj.new_model(config, encoder=tmp_path / "sam")
    theirs, ours = weights(source.image_encoder), weights(model.encoder)
    assert theirs.keys() == {name for name in ours if not name.startswith("head.")}
    for name, leaf in theirs.items():
        np.testing.assert_array_equal(ours[name], leaf, strict=True)
    with pytest.raises(InputError, match="even number of patches along both sides, not 3×4"):
        run(model, noise(1, 48, 64, 3))


def test_a_published_sam_stands_under_the_published_network():
    for size in "blh":
        encoder = getattr(SamConfig, f"sam_{size}")().image_encoder
        assert encoder == getattr(EncoderConfig, f"sam_{size}")()
        assert ModelConfig.over(encoder) == getattr(ModelConfig, f"cellvit_sam_{size}")()


def test_weights_of_another_type_are_cast(tmp_path):
    config = encoder_config()
    state = nnx.state(Encoder(config, rngs=nnx.Rngs(0)), checkpoint.WEIGHTS)
    half = jax.tree.map(lambda x: x.astype(jax.numpy.bfloat16), state)
    checkpoint.save(tmp_path / "enc", half, config, ENCODER_CARD)
    for name, leaf in weights(cj.new_model(CONFIG, encoder=tmp_path / "enc")).items():
        assert leaf.dtype == np.float32, name


def test_the_card_says_what_it_was_started_from(encoder):
    card = cj.new_model(CONFIG, encoder=encoder, seed=5, **NAMES).card
    assert card.provenance == (
        "Started from the encoder of enc (Of a test), with a decoder drawn from seed 5."
    )
    assert [c.name for c in card.classes] == ["Background", "Round", "Long"]
    assert (card.tissues, card.mean, card.license) == (NAMES["tissues"], ENCODER_CARD.mean, "CC0")
    assert card.citation.endswith("; X")
    numbered = cj.new_model(CONFIG, encoder=encoder).card
    assert [c.name for c in numbered.classes[1:]] == ["class 1", "class 2"]


def test_without_a_config_the_encoder_decides(tmp_path):
    path = save_encoder(tmp_path / "enc", encoder="sam")
    model = cj.new_model(encoder=path, classes=("Tumour", "Immune"))
    assert model.config == ModelConfig.over(encoder_config(encoder="sam"), 3, 0)
    assert model.card.tile == 4 * 16  # SAM has no more positions
    with pytest.raises(InputError, match="name the classes"):
        cj.new_model(encoder=path)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"embed_dim": 32}, "embed_dim 32, .*; the vit_encoder in .*enc has embed_dim 16"),
        ({"depth": 5}, "cellvit has an encoder of depth 5; .* has depth 4"),
        (
            {"patch_size": 8, "num_heads": 4},
            "num_heads 4, patch_size 8; .* num_heads 2, patch_size",
        ),
        ({"encoder": "dinov2", "gate": "gelu"}, "encoder dinov2, gate gelu; .* gate None"),
        ({"mlp_ratio": 2.0}, "mlp_width 32; .* mlp_width 64"),
        ({"position_grid": 14}, "position_grid 14"),
    ],
)
def test_an_encoder_of_other_sizes_is_one_sentence(encoder, fields, sentence):
    with pytest.raises(InputError, match=sentence):
        cj.new_model(small_config(**(FOUR | fields)), encoder=encoder)


def test_another_gate_is_warned_about(tmp_path):
    path = save_encoder(tmp_path / "enc", encoder="dinov2", gate="silu")
    config = small_config(**FOUR, encoder="dinov2", gate="gelu")
    with pytest.warns(UserWarning, match="gated by silu, cellvit gates them by gelu"):
        initialise.check_encoder(config, initialise.Source.find(path))


def test_the_number_of_names_must_be_the_configs(encoder):
    with pytest.raises(InputError, match="2 × class, and 1 are named"):
        cj.new_model(CONFIG, encoder=encoder, classes=("Tumour",))


# ----- never a random encoder ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda s: s["blocks"][2]["attn"]["qkv"].pop("kernel"),
            r"- encoder\.blocks\.2\.attn\.qkv\.kernel: in the model, not in",
        ),
        (
            lambda s: s.update(extra=nnx.Param(np.ones(1))),
            r"\+ encoder\.extra: in the checkpoint, not in",
        ),
        (
            lambda s: s["norm"].update(scale=nnx.Param(np.ones(3))),
            r"! encoder\.norm\.scale: \(3,\), the model has \(16,\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_a_diff(change, line, tmp_path):
    state = nnx.state(Encoder(encoder_config(), rngs=nnx.Rngs(0)), checkpoint.WEIGHTS)
    change(state["encoder"])
    checkpoint.save(tmp_path / "enc", state, encoder_config(), ENCODER_CARD)
    with pytest.raises(CheckpointError, match=line):
        cj.new_model(CONFIG, encoder=tmp_path / "enc")


def test_a_leaf_that_stays_empty_is_refused(encoder, monkeypatch):
    """Should reading ever give less than it checked, no random value takes the place."""
    read = checkpoint.load_branch

    def less(*arguments, **options):
        branch = read(*arguments, **options)
        return {name: leaf for name, leaf in branch.items() if name != "pos_embed"}

    monkeypatch.setattr(checkpoint, "load_branch", less)
    with pytest.raises(CheckpointError, match=r"left encoder\.pos_embed.* without a value"):
        cj.new_model(CONFIG, encoder=encoder)


def test_what_is_no_encoder_is_refused(tmp_path):
    config = HeadConfig(token_dim=4, hidden_dim=3, num_classes=2)
    state = nnx.state(CellClassifier(config, rngs=nnx.Rngs(0)), checkpoint.WEIGHTS)
    checkpoint.save(tmp_path / "head", state, config, CARD)
    with pytest.raises(InputError, match="is a cell_classifier: it has no encoder"):
        cj.new_model(CONFIG, encoder=tmp_path / "head")
    with pytest.raises(InputError, match="no model or folder"):
        cj.new_model(CONFIG, encoder=tmp_path / "missing")


# ----- the command's function ------------------------------------------------------------------


def test_a_written_model_loads_as_it_was_made(tmp_path):
    path = tmp_path / "model"
    save_small(path, shared_trunk=True, drop_rate=0.1)
    said = initialise.write_model(path, tmp_path / "new", *NAMES.values(), seed=4)
    assert "classes      Round, Long" in str(said)
    found = weights(cj.load(tmp_path / "new"))
    expected = weights(cj.new_model(encoder=path, **NAMES, seed=4))
    assert found.keys() == expected.keys()
    assert all((found[name] == leaf).all() for name, leaf in expected.items())
    with pytest.raises(OutputError, match="exists"):
        initialise.write_model(path, tmp_path / "new", ("Tumour",))
