"""The rendezvous' socket for its owner: one question, how it is.

``<state_dir>/serve.sock``, of mode 0600; its lines are those of a host's control socket
(:mod:`tunnel.io.control`), with ``status`` as the only command.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tunnel.io.control import RequestError, bind_private, parse_request, tell

SOCKET_NAME: Final = "serve.sock"
_PATIENCE: Final = 10.0  # seconds for a request, and for its answer to be read
_LINE: Final = 4096  # octets of a request
MAX_CLIENTS: Final = 8


class Showing:
    """Answers with what ``status`` gives, from :meth:`start` to :meth:`stop`."""

    def __init__(self, path: Path, status: Callable[[], dict[str, Any]]) -> None:
        self._path, self._status = path, status
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Binds the socket. Raises :class:`~tunnel.io.control.ControlError`."""
        with contextlib.suppress(OSError):  # what a killed one left: the state is ours alone
            self._path.unlink(missing_ok=True)
        bound = bind_private(self._path, "serve.state_dir")
        self._server = await asyncio.start_unix_server(self._serve, sock=bound, limit=_LINE)

    async def stop(self) -> None:
        """Ends all clients and removes the socket. Idempotent."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for task in list(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            async with asyncio.timeout(_PATIENCE):
                if len(self._clients) > MAX_CLIENTS:
                    await tell(writer, {"ok": False, "error": "too many clients; try again later"})
                else:
                    await tell(writer, self._answer(await reader.readline()))
        except (OSError, ValueError, TimeoutError, asyncio.CancelledError):
            pass  # it has gone, said too much or too little; or the rendezvous ends
        finally:
            self._clients.discard(task)
            writer.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            command = parse_request(line)["command"]
        except RequestError as problem:
            return {"ok": False, "error": str(problem)}
        if command != "status":
            return {"ok": False, "error": f"a rendezvous does not know {command!r}; ask its host"}
        return {"ok": True, "result": self._status()}
