"""The control socket: its requests, its answers, and what it does with strangers' lines."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest

from discovery.types import FoundService, Service
from tunnel import commands as do
from tunnel.io import control
from tunnel.io.control import (
    MAX_CLIENTS,
    MAX_LINE,
    ControlError,
    ControlServer,
    NotRunningError,
    ask,
    converse,
)
from tunnel.io.services import Services

SHELL = Service("_ssh._tcp", "Desk", 22, ("user=me",))


class NotReachedError(Exception):
    """The stand-in for the host's own failure."""


class StandIn:
    """A host that knows one peer."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self.asked = 0
        self.told: list[tuple[object, ...]] = []
        self.found = [FoundService(SHELL, "desk")]
        self.trouble = ""

    def status(self) -> dict[str, Any]:
        self.asked += 1
        return {"host": {"name": "desk"}, "asked": self.asked}

    async def reach(self, name: str) -> IPv6Address:
        if name != "laptop":
            raise NotReachedError(f"the zone knows no {name}")
        return IPv6Address("fd00::2")

    async def ping(self, name: str, count: int) -> dict[str, Any]:
        await self.reach(name)
        return {"name": name, "rtt_ms": [1.5] * count}

    async def lookup(self, name: str) -> dict[str, Any]:
        return {"name": name, "id": await self.reach(name)}

    async def explain(self, name: str) -> dict[str, Any]:
        await self.reach(name)
        return {"name": name, "events": []}

    async def export_keys(self, name: str) -> dict[str, Any]:
        await self.reach(name)
        return {"esp_sa": ["a line"], "ikev2_decryption_table": [], "notes": []}

    async def stop(self) -> None:
        self.stopped.set()

    @property
    def services(self) -> Services:
        return Services(self._ask, lambda: [{"name": "Desk", "state": "published"}], "x.example")

    async def _ask(self, request: str, *arguments: object) -> do.Command:
        if request == "browse":
            if self.trouble:
                raise NotReachedError(self.trouble)
            return do.Browsed(1, tuple(self.found))
        self.told.append((request, *arguments))
        return do.Advertised(1, done=True)


@pytest.fixture
def host() -> StandIn:
    return StandIn()


@pytest.fixture
async def path(tmp_path: Path, host: StandIn) -> AsyncIterator[Path]:
    server = ControlServer(tmp_path / "control.sock", host, (NotReachedError,))
    await server.start()
    yield tmp_path / "control.sock"
    await server.close()
    assert not (tmp_path / "control.sock").exists()


async def test_only_the_user_may_open_it(path: Path) -> None:
    mode = path.stat().st_mode  # noqa: ASYNC240 (a test may block)
    assert stat.S_IMODE(mode) == 0o600


async def test_every_command_is_answered(path: Path, host: StandIn) -> None:
    assert (await ask(path, {"command": "status"}))["host"] == {"name": "desk"}
    reached = await ask(path, {"command": "reach", "name": "laptop"})
    assert reached == {"name": "laptop", "id": "fd00::2"}
    assert (await ask(path, {"command": "ping", "name": "laptop", "count": 2}))["rtt_ms"] == [
        1.5
    ] * 2
    assert (await ask(path, {"command": "lookup", "name": "laptop"}))["id"] == "fd00::2"
    assert (await ask(path, {"command": "explain", "name": "laptop"}))["events"] == []
    assert (await ask(path, {"command": "keys", "name": "laptop"}))["esp_sa"] == ["a line"]
    assert not host.stopped.is_set()
    await ask(path, {"command": "down"})
    await asyncio.wait_for(host.stopped.wait(), 60)


async def test_the_host_s_no_reaches_the_person_in_its_own_words(path: Path) -> None:
    with pytest.raises(ControlError, match="the zone knows no desk"):
        await ask(path, {"command": "reach", "name": "desk"})


async def test_watch_answers_again_and_again(path: Path) -> None:
    seen = []
    async for facts in converse(path, {"command": "watch", "interval_s": 0.1}):
        seen.append(facts["asked"])
        if len(seen) == 3:
            break
    assert seen == [1, 2, 3]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"x\n", "not a line of JSON"),
        (b"[" * 60000 + b"\n", "not a line of JSON"),
        (b"[]\n", "not an object"),
        (b'{"command": 1}\n', "not an object"),
        (b'{"command": "format"}\n', "unknown command 'format'"),
        (b'{"command": "reach"}\n', "must be the name of a host"),
        (b'{"command": "reach", "name": "a\\nb"}\n', "must be the name of a host"),
        (b'{"command": "ping", "name": "a", "count": 0}\n', '"count" must be a number'),
        (b'{"command": "ping", "name": "a", "count": true}\n', '"count" must be a number'),
        (b'{"command": "watch", "interval_s": NaN}\n', '"interval_s" must be a number'),
        (b"x" * (MAX_LINE + 10) + b"\n", f"over {MAX_LINE} octets"),
    ],
)
async def test_a_line_that_is_no_request_is_refused_in_words(
    path: Path, line: bytes, reason: str
) -> None:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(line)
    answer = json.loads(await asyncio.wait_for(reader.readline(), 60))
    writer.close()
    assert answer["ok"] is False
    assert reason in answer["error"]


async def test_one_connection_may_ask_many_times(path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(str(path))
    for expected in (1, 2, 3):
        writer.write(b'{"command": "status"}\n')
        answer = json.loads(await asyncio.wait_for(reader.readline(), 60))
        assert answer["result"]["asked"] == expected
    writer.close()


async def test_clients_are_bounded(path: Path) -> None:
    many = [await asyncio.open_unix_connection(str(path)) for _ in range(MAX_CLIENTS)]
    for reader, writer in many:  # each is served before the next one comes
        writer.write(b'{"command": "status"}\n')
        await asyncio.wait_for(reader.readline(), 60)
    with pytest.raises(ControlError, match="too many clients"):
        await ask(path, {"command": "status"})
    for _, writer in many:
        writer.close()


async def test_a_second_host_on_the_same_state_is_refused(path: Path, host: StandIn) -> None:
    with pytest.raises(ControlError, match=r"a host runs already .* `autotunnel down`"):
        await ControlServer(path, host, ()).start()
    assert (await ask(path, {"command": "status"}))["host"]["name"] == "desk"


async def test_the_socket_of_a_killed_host_is_replaced(tmp_path: Path, host: StandIn) -> None:
    stale = tmp_path / "control.sock"
    listener = control.socket.socket(control.socket.AF_UNIX)
    listener.bind(str(stale))
    listener.close()  # as kill -9 leaves it
    with pytest.raises(NotRunningError, match=r"no host runs here .* `autotunnel up`"):
        await ask(stale, {"command": "status"})
    server = ControlServer(stale, host, ())
    await server.start()
    assert (await ask(stale, {"command": "status"}))["asked"] == 1
    await server.close()


async def test_a_path_that_cannot_be_bound_is_told(tmp_path: Path, host: StandIn) -> None:
    with pytest.raises(ControlError, match="too long"):
        await ControlServer(tmp_path / ("x" * 120), host, ()).start()
    with pytest.raises(ControlError, match="cannot be made"):
        await ControlServer(tmp_path / "no" / "control.sock", host, ()).start()


async def test_a_host_that_ends_in_the_middle_is_told(tmp_path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.close()

    server = await asyncio.start_unix_server(hang_up, str(tmp_path / "s"))
    with pytest.raises(ControlError, match="ended before it answered"):
        await ask(tmp_path / "s", {"command": "status"})
    server.close()


# --- Services -------------------------------------------------------------------------------

FOUND = {"type": "_ssh._tcp", "name": "Desk", "port": 22, "texts": ["user=me"]}


async def test_services_are_advertised_withdrawn_and_found(path: Path, host: StandIn) -> None:
    said = await ask(path, {"command": "advertise", "service": FOUND})
    assert said == {**FOUND, "published": True}
    gone = await ask(path, {"command": "withdraw", "type": "_SSH._tcp", "name": "Desk"})
    assert gone == {"type": "_ssh._tcp", "name": "Desk", "gone": True}
    assert host.told == [("advertise", SHELL), ("withdraw_service", "_ssh._tcp", "Desk")]
    assert await ask(path, {"command": "services"}) == [{"name": "Desk", "state": "published"}]
    for request in ({"command": "browse"}, {"command": "browse", "type": "_ssh._tcp"}):
        assert await ask(path, request) == [{**FOUND, "host": "desk.x.example"}]


@pytest.mark.parametrize(
    "request_",
    [
        {"command": "advertise"},
        {"command": "advertise", "service": {**FOUND, "port": 0}},
        {"command": "advertise", "service": {**FOUND, "texts": "user=me"}},
        {"command": "advertise", "service": {**FOUND, "type": "_autotunnel._udp"}},
        {"command": "withdraw", "type": "_ssh._tcp", "name": ""},
        {"command": "withdraw", "type": 1, "name": "Desk"},
        {"command": "browse", "type": "ssh"},
        {"command": "browse-watch", "type": "", "interval_s": 0},
    ],
)
async def test_requests_about_services_are_checked(path: Path, request_: dict[str, Any]) -> None:
    with pytest.raises(ControlError):
        await ask(path, request_)


async def test_a_watcher_is_told_of_changes_only(path: Path, host: StandIn) -> None:
    stream = converse(path, {"command": "browse-watch", "type": "", "interval_s": 0.1})
    assert len(await anext(stream)) == 1
    host.found = []
    assert await anext(stream) == []
    host.found = [FoundService(SHELL, "lap")]
    assert (await anext(stream))[0]["host"] == "lap.x.example"
    host.trouble = "the rendezvous cannot be reached"
    with pytest.raises(ControlError, match="cannot be reached"):
        await anext(stream)


async def test_whoever_watches_looks_again_when_something_has_stirred() -> None:
    host = StandIn()
    services = host.services
    watch = services.watch("", 3600)
    assert len(await anext(watch)) == 1
    again = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    host.found = []
    services.stirred()
    assert await asyncio.wait_for(again, 60) == []
