"""What a measurement costs: processor time and memory of a tunnel's processes.

Processor time is user and system time of all threads of these processes, as the scheduler counts
it. A packet's path through the kernel is in it only where a system call of theirs, or an interrupt
on top of them, did it: what runs in ksoftirqd or on top of iperf3 is not. ``machine`` is the whole
machine's busy time, with iperf3, softirq and whatever else ran meanwhile.
"""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_IDLE = (3, 4)  # columns of /proc/stat: idle, iowait
_COUNTED_TWICE = 8  # guest times are within user and nice


class Cost:
    """Counts from its making on."""

    def __init__(self, pids: tuple[int, ...]) -> None:
        self._pids = pids
        self._begun = _of_processes(pids), _of_machine()

    def seconds(self) -> tuple[float, float]:
        """Processor seconds until now: of the processes, of the whole machine."""
        own, whole = self._begun
        return _of_processes(self._pids) - own, _of_machine() - whole

    def per_gb(self, octets: float) -> dict[str, float]:
        """Both as seconds for 10^9 octets; nothing for no processes and for no octets."""
        if not octets:
            return {}
        own, whole = (seconds / (octets / 1e9) for seconds in self.seconds())
        figures = {"machine_cpu_s_per_gb": whole}
        return figures | {"cpu_s_per_gb": own} if self._pids else figures


def resident_mib(pids: tuple[int, ...]) -> float:
    """Resident memory of the largest of these processes, in MiB."""
    sizes = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
    return max(sizes, default=0) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _of_processes(pids: tuple[int, ...]) -> float:
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def _of_machine() -> float:
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    busy = (n for place, n in enumerate(fields[:_COUNTED_TWICE]) if place not in _IDLE)
    return sum(busy) / _TICKS
