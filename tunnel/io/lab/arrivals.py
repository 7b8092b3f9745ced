"""When packets arrived, read from a capture while it is still being written."""

from __future__ import annotations

import struct
from bisect import bisect_right
from itertools import pairwise
from pathlib import Path
from typing import Protocol

_FILE_HEADER, _RECORD = 24, struct.Struct("<IIII")


class _Written(Protocol):
    @property
    def file(self) -> Path: ...


class Arrivals:
    """The times (wall clock, seconds) of all packets of a capture by this machine's tcpdump."""

    def __init__(self, capture: _Written) -> None:
        self._capture = capture
        self._read = _FILE_HEADER
        self._times: list[float] = []

    def times(self, since: float = 0.0) -> list[float]:
        """All arrivals so far, later than ``since``."""
        self._read_on()
        return self._times[bisect_right(self._times, since) :]

    def flow_since(self, moment: float, seconds: float, pause: float) -> bool:
        """Whether packets have come for so long now, all after ``moment``, never later than
        ``pause`` seconds after the last one."""
        times = self.times(moment)
        if not times or times[-1] - times[0] < seconds:
            return False
        begun = times[-1] - seconds
        return all(later - one <= pause for one, later in pairwise(times) if later > begun)

    def longest_gap(self, since: float) -> float:
        """The longest time without a packet, in seconds; the packet that ends it came after
        ``since``."""
        self._read_on()
        first = max(bisect_right(self._times, since) - 1, 0)
        return max(later - one for one, later in pairwise(self._times[first:]))

    def _read_on(self) -> None:
        with self._capture.file.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        place = 0
        while place + _RECORD.size <= len(data):
            seconds, micros, octets, _ = _RECORD.unpack_from(data, place)
            if place + _RECORD.size + octets > len(data):
                break  # it is being written
            place += _RECORD.size + octets
            self._times.append(seconds + micros / 1e6)
        self._read += place
