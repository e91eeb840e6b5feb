import pytest

from cellvit_jax.errors import MissingExtraError, hint, optional, printable


def test_the_nearest_known_name_is_suggested():
    assert hint("cellvit-tinny", ("cellvit-256", "cellvit-tiny")) == " (did you mean cellvit-tiny?)"
    assert hint("thesis", ("cellvit-256", "cellvit-tiny")) == ""


def test_what_is_not_installed_names_its_extra():
    assert optional("json", "train").loads("1") == 1
    with pytest.raises(MissingExtraError, match=r"no_such is not .*'cellvit-jax\[train\]'"):
        optional("no_such", "train")


def test_names_cannot_steer_a_terminal():
    assert printable("a\x1b[2J\nb") == "a?[2J\nb"
