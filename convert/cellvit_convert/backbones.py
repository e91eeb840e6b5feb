"""The families of encoders that are known, one line each."""

from types import ModuleType

from cellvit_convert import sam, uni, virchow, vit256
from cellvit_convert.content import Content
from cellvit_convert.rules import Rule
from cellvit_jax.models import EncoderConfig

FAMILIES = (vit256, sam, uni, virchow)
TABLES: dict[str, tuple[Rule, ...]] = {  # by the config's encoder
    "vit": vit256.ENCODER,
    "sam": sam.ENCODER,
    "dinov2": uni.ENCODER,
}


def recognise(content: Content) -> bool:
    """Whether there is a known vision transformer named `encoder`, by its keys."""
    return _family(content) is not None


def config(content: Content) -> EncoderConfig:
    """The encoder, from shapes; what these cannot tell from the checkpoint's own config."""
    family = _family(content)
    assert family is not None, "asked for after `recognise`"
    return family.config(content)


def _family(content: Content) -> ModuleType | None:
    return next((family for family in FAMILIES if family.recognise(content)), None)
