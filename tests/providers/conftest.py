"""What tests of the wires share: a server of ours, and connections that are closed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ovagent_jupyter.providers.connections import Connections
from tests.providers.served import Served


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A server of ours."""
    async with Served() as server:
        yield server


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    """Connections, closed after the test."""
    made = Connections()
    yield made
    await made.aclose()
