"""What the tests share: a network of namespaces on this machine, and how Hypothesis is set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import disks
from tunnel.io.lab import Lab, missing

# How long an example takes says nothing on a busy machine, and is nobody's fault.
settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("unhurried")


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A lab that is taken away after the test."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with Lab() as made:
        yield made


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of half a megabyte."""
    with disks.small_disk(tmp_path) as disk:
        yield disk
