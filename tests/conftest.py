"""What several rooms' tests share: a network of namespaces on this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tunnel.io.lab import Lab, missing


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A lab that is taken away after the test."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with Lab() as made:
        yield made
