"""The same tests run over both engines."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fastpath.support import ENGINES, esp_engine


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Any:
    """A module with ``OutboundSa`` and ``InboundSa``."""
    return esp_engine(request.param)
