"""Packet captures, and the search for what must not be in them."""

from __future__ import annotations

import mmap
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunnel.io.lab.namespace import Namespace
from tunnel.io.lab.process import LabError, Process, wait_until

BUFFER_KIB = 65536
_PCAP_HEADER_OCTETS = 24


class Capture:
    """A ``tcpdump`` that writes all packets of one device into ``file``.

    ``filter`` is a pcap filter expression. The packets are in pcap format, and complete, or of each
    the first ``octets``.
    """

    def __init__(
        self, where: Namespace, device: str, file: Path, filter_: str = "", octets: int = 0
    ) -> None:
        self.file = file
        self._process: Process = where.start(
            *("tcpdump", "-i", device, "-n", "-U", "-s", str(octets), "-B", str(BUFFER_KIB)),
            *("--immediate-mode", "-Z", "root", "-w", str(file)),
            *((filter_,) if filter_ else ()),
            name=f"tcpdump-{file.stem}",
        )
        self._process.wait_for("listening on", 60.0)

    @property
    def octets(self) -> int:
        """How many octets the file holds now."""
        return self.file.stat().st_size if self.file.exists() else 0

    def wait_for_packets(self, timeout: float = 60.0) -> None:
        """Wait until at least one packet has been written."""
        wait_until(lambda: self.octets > _PCAP_HEADER_OCTETS, timeout, "a packet was captured")

    def stop(self) -> None:
        """End the capture; the file is complete afterwards."""
        if self._process.running:
            self._process.stop(signal.SIGINT)

    def packets(self) -> int:
        """How many packets were captured (after :meth:`stop`)."""
        return self._count(r"(\d+) packets? captured")

    def lost(self) -> int:
        """How many packets the capture missed (after :meth:`stop`)."""
        return self._count(r"(\d+) packets? dropped by kernel")

    def _count(self, pattern: str) -> int:
        found = re.search(pattern, self._process.output())
        if found is None:
            raise LabError(f"tcpdump gave no figures; it said:\n{self._process.tail()}")
        return int(found[1])


@dataclass(frozen=True, slots=True)
class Sighting:
    """``what`` was seen ``times`` times, first at octet ``offset`` of the file."""

    what: str
    times: int
    offset: int


def find_all(file: Path, needles: Mapping[str, bytes], *, most: int = 1000) -> list[Sighting]:
    """Find each of ``needles`` (what it is → its octets) in ``file``; only what is there."""
    if file.stat().st_size == 0:
        return []
    found = []
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for what, needle in needles.items():
            first = data.find(needle)
            if first < 0:
                continue
            times, place = 0, first
            while place >= 0 and times < most:
                times += 1
                place = data.find(needle, place + 1)
            found.append(Sighting(what, times, first))
    return found
