"""What is compared with recorded numbers has the optimisations that users have."""

from collections.abc import Iterator

import pytest

from tests.compilation import optimised


@pytest.fixture(scope="module", autouse=True)
def _optimised() -> Iterator[None]:
    with optimised():
        yield
