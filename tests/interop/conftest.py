"""One stage for each file of tests: making a network costs more than playing on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop.stage import Stage
from tunnel.io.lab import Lab, missing


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with Lab() as lab:
        yield Stage(lab)
