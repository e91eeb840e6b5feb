"""Commands as people run them."""

import warnings
from collections.abc import Callable

Call = Callable[..., tuple[int, str, str]]


def warned(call: Call) -> Call:
    """The fixture `call` as in a terminal, where warnings are shown, not raised."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            return call(*arguments)

    return run
