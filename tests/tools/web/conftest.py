"""A site that every test here may misuse."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tools.web.site import Site


@pytest.fixture
def site() -> Iterator[Site]:
    found = Site()
    yield found
    found.close()
