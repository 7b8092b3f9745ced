"""When packets arrived, read from a capture while it is still being written."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path
from typing import Protocol

_FILE_HEADER, _RECORD = 24, struct.Struct("<IIII")


class _Written(Protocol):
    file: Path


class Arrivals:
    """The times (wall clock, seconds) of all packets of a capture by this machine's tcpdump."""

    def __init__(self, capture: _Written) -> None:
        self._capture = capture
        self._read = _FILE_HEADER
        self._times: list[float] = []

    def times(self) -> list[float]:
        """All arrivals so far."""
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
        return self._times

    def flow_since(self, moment: float, seconds: float, pause: float) -> bool:
        """Whether packets have come for so long now, all after ``moment``, never later than
        ``pause`` seconds after the last one."""
        times = [one for one in self.times() if one > moment]
        if not times or times[-1] - times[0] < seconds:
            return False
        begun = times[-1] - seconds
        return all(later - one <= pause for one, later in pairwise(times) if later > begun)

    def longest_gap(self, since: float) -> float:
        """The longest time without a packet, in seconds; the packet that ends it came after
        ``since``."""
        return max(later - one for one, later in pairwise(self.times()) if later > since)
