"""The image encoder of Segment Anything, under CellViT-SAM-B, -L and -H."""

from collections import Counter

from cellvit_convert import decoder, encoder
from cellvit_convert.content import Content
from cellvit_convert.rules import CONV, DOUBLING, LAYER_NORM, LINEAR, Parameter, Rule, same
from cellvit_jax.models import EncoderConfig, ModelConfig

POSITIONS = {"pos_embed": Parameter("pos_embed")}
DISTANCES = {"rel_pos_h": Parameter("rel_pos_h"), "rel_pos_w": Parameter("rel_pos_w")}
PRESETS = (EncoderConfig.sam_b(), EncoderConfig.sam_l(), EncoderConfig.sam_h())

ENCODER = (
    same("encoder", POSITIONS),
    Rule("encoder.patch_embed.proj", "encoder.patch_embed", CONV),
    same("encoder.blocks.*.norm1", LAYER_NORM),
    same("encoder.blocks.*.attn", DISTANCES),
    same("encoder.blocks.*.attn.qkv", LINEAR),
    same("encoder.blocks.*.attn.proj", LINEAR),
    same("encoder.blocks.*.norm2", LAYER_NORM),
    Rule("encoder.blocks.*.mlp.lin1", "encoder.blocks.*.mlp.fc1", LINEAR),
    Rule("encoder.blocks.*.mlp.lin2", "encoder.blocks.*.mlp.fc2", LINEAR),
    Rule("encoder.blocks.*.Adapter.norm", "encoder.blocks.*.adapter.norm", LAYER_NORM),
    Rule("encoder.blocks.*.Adapter.channel.0", "encoder.blocks.*.adapter.squeeze", LINEAR),
    Rule("encoder.blocks.*.Adapter.channel.2", "encoder.blocks.*.adapter.excite", LINEAR),
    Rule("encoder.blocks.*.Adapter.spatial.0", "encoder.blocks.*.adapter.down", CONV),
    Rule("encoder.blocks.*.Adapter.spatial.2", "encoder.blocks.*.adapter.up", DOUBLING),
    Rule("encoder.neck.0", "encoder.neck.layers.0", CONV),
    Rule("encoder.neck.1", "encoder.neck.layers.1", LAYER_NORM),
    Rule("encoder.neck.2", "encoder.neck.layers.2", CONV),
    Rule("encoder.neck.3", "encoder.neck.layers.3", LAYER_NORM),
)
TISSUES = Rule("classifier_head", "encoder.head", LINEAR)


def rules(config: ModelConfig) -> tuple[Rule, ...]:
    """The table of a network's names."""
    return (*ENCODER, *decoder.rules(config), TISSUES)


def recognise(content: Content) -> bool:
    """Whether the encoder is SAM's, by its keys."""
    return encoder.recognise(content) and content.has(encoder.BLOCK + r"attn\.rel_pos_[hw]")


def config(content: Content) -> EncoderConfig:
    """The encoder, from shapes."""
    dim = encoder.width(content)
    hidden = content.size(encoder.BLOCK + r"mlp\.lin1\.(weight|bias)", default=4 * dim)
    side = content.size(r"encoder\.pos_embed", axis=1, default=64)
    window, global_layers = _windows(content, 2 * side - 1)
    head = content.size(encoder.BLOCK + r"attn\.rel_pos_[hw]", axis=1)
    return encoder.named(
        PRESETS,
        encoder="sam",
        embed_dim=dim,
        depth=encoder.depth(content),
        num_heads=max(dim // head, 1),
        patch_size=encoder.patch_size(content, 16),
        position_grid=side,
        window_size=window,
        global_layers=global_layers,
        adapters=content.has(encoder.BLOCK + r"Adapter\..*"),
        mlp_ratio=hidden / dim,
    )


def _windows(content: Content, whole: int) -> tuple[int, tuple[int, ...]]:
    """The windows' side, and the blocks (from 1) that have as many distances as the whole grid."""
    tables = {
        int(match[1]): tensor.shape[0]
        for match, tensor in content.matches(encoder.BLOCK + r"attn\.rel_pos_[hw]")
        if tensor.ndim
    }
    sides = Counter((length + 1) // 2 for length in tables.values() if length != whole)
    window = sides.most_common(1)[0][0] if sides else ModelConfig.window_size
    return window, tuple(sorted(i + 1 for i, length in tables.items() if length == whole))
