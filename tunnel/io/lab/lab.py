"""The owner of everything that a lab makes; what it makes goes away with it."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import threading
from pathlib import Path
from types import FrameType, TracebackType

from tunnel.io.lab.capture import Capture
from tunnel.io.lab.leftovers import (
    FOLDER_PREFIX,
    new_prefix,
    remove_all_of,
    remove_leftovers,
)
from tunnel.io.lab.namespace import Namespace
from tunnel.io.lab.process import LabError, Process
from tunnel.io.lab.topology import Switch

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Lab:
    """A network on this machine, as a context manager; not to be used after its end.

    ``folder`` holds logs, captures and the machines' files, and is removed with the rest.
    In the main thread SIGTERM and SIGHUP become ``SystemExit`` while the lab stands, so that it
    is taken away; a second Ctrl-C while that happens does not break it off.
    """

    def __init__(self) -> None:
        self._prefix = new_prefix()
        self._stack = contextlib.ExitStack()
        self._handlers: dict[signal.Signals, signal._HANDLER] = {}
        self.folder = Path()
        self.machines: list[Namespace] = []
        self._started: list[Process] = []

    def __enter__(self) -> Lab:
        """Begin: leftovers of dead runs go, our folder comes."""
        remove_leftovers()
        self._take_signals()
        try:
            folder = tempfile.TemporaryDirectory(
                prefix=f"{FOLDER_PREFIX}{self._prefix}", ignore_cleanup_errors=True
            )
            self.folder = Path(self._stack.enter_context(folder))
        except BaseException:
            self._give_back_signals()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take everything away, in the reverse order of its making: programs first, while their
        network still stands, so that a host can take its leave of the rendezvous."""
        before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, *_ENDING):
                before[number] = signal.signal(number, signal.SIG_IGN)
        try:
            for process in reversed(self._started):
                process.stop(timeout=5.0)
            self._stack.__exit__(kind, error, trace)
            remove_all_of(self._prefix)  # a signal may come between a machine and its callback
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self._give_back_signals()

    # --- What a lab is made of --------------------------------------------------------------

    def namespace(self, role: str) -> Namespace:
        """A new machine with only a loopback device. ``role``: letters, digits and hyphens."""
        if not role.replace("-", "").isalnum():
            raise LabError(f"{role!r} is no good name for a machine of a lab")
        made = Namespace(role, self._prefix, self.folder, self._started)
        self._stack.callback(made.close)
        self.machines.append(made)
        return made

    def switch(self, role: str) -> Switch:
        """A new network segment."""
        return Switch(self.namespace(role))

    def capture(
        self,
        where: Namespace,
        device: str,
        name: str = "capture",
        filter_: str = "",
        octets: int = 0,
    ) -> Capture:
        """Capture the packets of a device from now on, into ``folder/<name>.pcap``; of each the
        first ``octets``, or all of it."""
        made = Capture(where, device, self.folder / f"{name}.pcap", filter_, octets)
        self._stack.callback(made.stop)
        return made

    def machines_of(self, *roles: str) -> tuple[Namespace, ...]:
        """Several new machines at once."""
        return tuple(self.namespace(role) for role in roles)

    # --- Signals ----------------------------------------------------------------------------

    def _take_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread may, and only it receives them
        for number in _ENDING:
            self._handlers[number] = signal.signal(number, _end)

    def _give_back_signals(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
