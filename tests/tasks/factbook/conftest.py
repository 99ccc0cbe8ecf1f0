"""The vendored world and its facts, loaded once for all tests."""

from __future__ import annotations

import pytest

from mgrpo_lightning.tasks.factbook.facts import Facts
from mgrpo_lightning.tasks.factbook.world import World, load_world


@pytest.fixture(scope="session")
def world() -> World:
    return load_world()


@pytest.fixture(scope="session")
def facts(world: World) -> Facts:
    return Facts(world)
