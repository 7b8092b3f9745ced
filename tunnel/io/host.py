"""Host: one running autotunnel host on an asyncio loop; all of its I/O meets here.

In order: engine, secrets, control socket, UDP sockets, device, stub resolver; then every
capability is dropped; then the pump's threads, the node and the zone. It ends in the reverse
order, and the control socket goes last.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import warnings
from collections.abc import Callable
from contextlib import AsyncExitStack
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import dns.name
import structlog

import fastpath
from discovery.io_stub import StubError, StubServer
from discovery.stub import NotThere
from discovery.types import RecordsFound
from fastpath.types import Endpoint, Pump, Queue, Source
from keys.store import HostIdError, SecretFileError
from tunnel import commands as do
from tunnel.config import HostConfig
from tunnel.io import identity as who
from tunnel.io import offloads
from tunnel.io.control import ControlServer
from tunnel.io.device import Device, open_device
from tunnel.io.driver import Driver
from tunnel.io.keeping import Keeping
from tunnel.io.making import Chance, Ingredients, Recording, node_of
from tunnel.io.network import Network
from tunnel.io.outer import device_mtu
from tunnel.io.papers import Papers
from tunnel.io.privilege import drop_all
from tunnel.io.recording import RecordingError
from tunnel.io.requests import Requests
from tunnel.io.resolved import Integration
from tunnel.io.services import Services, ServicesFile, ServicesFileError
from tunnel.io.sockets import SocketError, UdpPair
from tunnel.io.zone import ZoneLink
from tunnel.journal import What
from tunnel.node import Node
from tunnel.status import endpoint_text

_PAPERS_EVERY = 3.0  # seconds between two looks for word of other processes
_FIRST_WORD = 5.0  # seconds that the start waits for the zone's first word
_FAREWELL = 6.0  # seconds for the end: above the node's own limit
_PING_INTERVAL = 0.2  # seconds
_RELAY_DROPS = ("not_relayed", "relay_limit", "foreign_source")
_CANNOT_START = (
    *(SecretFileError, HostIdError, SocketError, StubError, ServicesFileError, RecordingError),
)


class HostError(Exception):
    """The host cannot start or go on; the text says cause and fix."""


class Unreachable(Exception):  # noqa: N818 - an answer, not a fault
    """A peer could not be reached; the text is the reason.

    ``no_such_host``: the zone says that there is no host of that name.
    """

    def __init__(self, reason: str, no_such_host: bool = False) -> None:
        self.reason, self.no_such_host = reason, no_such_host
        super().__init__(reason)


class Host:
    """Runs one host of ``config``. Construct it anywhere, :meth:`run` it in a loop, once.

    ``record``: the file into which it is recorded (:mod:`tunnel.io.recording`).
    """

    def __init__(self, config: HostConfig, record: Path | None = None) -> None:
        self._config, self._record = config, record
        self._log = structlog.get_logger("autotunnel")
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._finished = asyncio.Event()
        self._zone_spoke = asyncio.Event()
        self._requests = Requests()
        self._node: Node | None = None
        self._driver: Driver | None = None
        self._pump: Pump | None = None
        self._device: Device | None = None
        self._link: ZoneLink | None = None
        self._papers: Papers | None = None
        self._host_id: IPv6Address | None = None
        self._network: Network | None = None
        self._resolver: StubServer | None = None
        self._resolved: Integration | None = None
        self._services_file = ServicesFile(config.state_dir)
        self._keeping = Keeping(self._write)
        domain = config.account.domain if config.account else None
        self._services = Services(
            self._ask,
            lambda: [] if self._node is None else self._node.services(),
            domain,
            self._follow_services,
        )

    # --- Life -------------------------------------------------------------------------------

    async def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Runs until :meth:`stop`. ``on_ready`` is called once everything stands and the zone has
        spoken (or was given up on for now; it is tried on and on).

        Raises :class:`HostError` (and ``DeviceError``, ``ControlError``, ``PrivilegeError``,
        ``fastpath.EngineUnavailable``, all with cause and fix) when it cannot start, which
        includes a zone that refuses our signature.
        """
        try:
            async with AsyncExitStack() as stack:
                try:
                    await self._set_up(stack)
                except _CANNOT_START as problem:
                    raise HostError(str(problem)) from None
                await self._first_word()
                on_ready()
                await self._stopping.wait()
                await self._farewell()
        finally:
            self._requests.give_up("this host is ending")
            self._ended.set()

    async def stop(self) -> None:
        """Withdraws the records, tells the peers, and takes everything away; returns when that
        is done. Idempotent, bounded to a few seconds."""
        self._stopping.set()
        await self._ended.wait()

    async def _set_up(self, stack: AsyncExitStack) -> None:
        config = self._config
        engine = self._choose_engine()
        recording = None if self._record is None else Recording(self._record, config)
        if recording is not None:
            stack.callback(recording.end)
        chance = Chance() if recording is None else recording.chance
        what = Ingredients.read(config, chance.random)
        account, self._papers = what.account, what.papers
        self._host_id = host_id = who.host_id_of(config)
        stack.callback(self._keeping.end)

        control = ControlServer(config.control_socket, self, (Unreachable, HostError))
        await control.start()
        stack.push_async_callback(control.close)
        pair, ike_pair = self._open_sockets(stack)
        self._device = device = self._open_device(stack, engine, host_id)
        if config.resolver.enabled and account is not None:
            await self._resolve_names(stack, device, account.domain, host_id)
        drop_all()

        self._pump = pump = _make_pump(engine, device, pair, host_id, config.engine.offload)
        if recording is not None:
            recording.begin(host_id, device.mtu)
        self._link = link = ZoneLink(config, account, chance.random)
        self._node = node = node_of(what, host_id, link.client, device.mtu, chance)
        if recording is not None:
            recording.recorder.made()
        self._driver = driver = Driver(
            node,
            pump,
            device,
            ike_pair=ike_pair,
            send_zone=link.send,
            drop_zone=link.drop,
            answer=self._answer,
            resumed=self._resumed,
            recorder=None if recording is None else recording.recorder,
        )
        stack.callback(driver.stop)
        driver.start()
        stack.push_async_callback(link.close)
        await link.start(node, self._tell_zone)
        self._watch_network(stack, link, host_id)
        if self._papers is not None and self._papers.issuer is not None:
            watch = asyncio.create_task(self._watch_papers(driver, node))
            stack.push_async_callback(_cancel, watch)

    def _open_sockets(self, stack: AsyncExitStack) -> tuple[UdpPair, UdpPair | None]:
        """The port of everything, and the one that IKE has beside it, if any."""
        config = self._config
        pair = UdpPair(config.host.listen, "host.listen", config.engine.threads)
        stack.callback(pair.close)
        if config.host.ike_port is None:
            return pair, None
        ike_pair = UdpPair(config.host.ike_port, "host.ike_port")
        stack.callback(ike_pair.close)
        return pair, ike_pair

    def _open_device(self, stack: AsyncExitStack, engine: str, host_id: IPv6Address) -> Device:
        config = self._config
        device = open_device(
            config.host.device,
            host_id,
            device_mtu(config),
            exact=config.host.mtu != "auto",
            offload=engine == "native" and config.engine.offload,
            queues=config.engine.threads,
        )
        stack.callback(device.close)
        return device

    async def _resolve_names(
        self, stack: AsyncExitStack, device: Device, domain: str, host_id: IPv6Address
    ) -> None:
        """The stub resolver, and whoever is to ask it."""
        self._resolver = resolver = self._make_resolver(domain, host_id)
        stack.push_async_callback(resolver.stop)
        await resolver.start()
        if self._config.resolver.integrate == "auto":
            resolved = Integration(device.name, domain, resolver.address)
            stack.push_async_callback(resolved.stop)
            await resolved.start()
            self._resolved = resolved

    def _watch_network(self, stack: AsyncExitStack, link: ZoneLink, host_id: IPv6Address) -> None:
        self._network = network = Network(
            self._config,
            host_id,
            lambda: link.server_address,
            moved=self._moved,
            publish=self._publish,
            look_outside=self._look_outside,
            stand=self._stand,
            zone_up=lambda: link.up,
            imposter=lambda: link.imposter,
            note=self._note,
            translate=self._translate,
            others=self._other_ways,
        )
        stack.push_async_callback(network.stop)
        stack.push_async_callback(_cancel, asyncio.create_task(network.run()))

    def _make_resolver(self, domain: str, host_id: IPv6Address) -> StubServer:
        config = self._config

        async def reach(label: str) -> IPv6Address | NotThere:
            try:
                return await self.reach(f"{label}.{domain}")
            except Unreachable as problem:
                return NotThere(problem.reason, problem.no_such_host)

        async def ask_zone(name: dns.name.Name, rdtype: int) -> RecordsFound:
            try:
                answer = await self._ask("ask_zone", name, rdtype)
            except Unreachable as problem:
                return RecordsFound(name, rdtype, (), False, problem.reason)
            assert isinstance(answer, do.RecordsSaid)
            return answer.found

        def name_of(host_id: IPv6Address) -> str | None:
            return None if self._node is None else self._node.name_of(host_id)

        return StubServer(
            listen=config.resolver.address,
            domain=domain,
            label=config.host.name,
            host_id=host_id,
            reach=reach,
            ask=ask_zone,
            name_of=name_of,
            forward=config.resolver.servers,
        )

    def _choose_engine(self) -> str:
        """The engine's name; one that is not what one would expect is logged (never silently)."""
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", fastpath.EngineWarning)
            chosen = fastpath.choose(self._config.engine.name)
        for warning in said:
            self._log.warning(str(warning.message))
        return chosen.name

    async def _first_word(self) -> None:
        """Waits until the zone took our records, or said that it never will."""
        if self._link is None or self._link.client is None:
            return
        waiting = [asyncio.create_task(e.wait()) for e in (self._zone_spoke, self._stopping)]
        await asyncio.wait(waiting, timeout=_FIRST_WORD, return_when=asyncio.FIRST_COMPLETED)
        for one in waiting:
            await _cancel(one)
        if self._zone_refusal is not None:
            raise HostError(self._zone_refusal)

    async def _farewell(self) -> None:
        driver, node = self._driver, self._node
        assert driver is not None and node is not None
        driver.tell(node.shutdown)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._finished.wait(), _FAREWELL)

    # --- Between node and world ---------------------------------------------------------------

    def _answer(self, command: do.Command) -> None:
        if isinstance(command, do.Finished):
            self._finished.set()
        elif isinstance(command, do.Keep):
            self._keeping.keep(command.what, command.content)
        elif isinstance(command, do.ServicesStirred):
            self._services.stirred()
        elif isinstance(command, do.AskRouter):
            assert self._network is not None
            asyncio.get_running_loop().call_soon(self._network.ask_router)
        elif isinstance(command, do.OutsideSeen):
            assert self._network is not None
            seen = self._network.seen
            asyncio.get_running_loop().call_soon(seen, command.endpoint, command.mapping)
        else:
            self._requests.answer(command)

    def _follow_services(self, kind: str, more: int) -> None:
        if self._driver is not None and self._node is not None:
            self._driver.tell(self._node.watch_services, kind, more)

    def _write(self, what: str, content: bytes) -> None:
        assert self._papers is not None
        if what == "services":
            self._services_file.keep(content)
        else:
            self._papers.keep(what, content)

    def _tell_zone(self, method: Callable[..., list[do.Command]], *arguments: Any) -> None:
        driver, node = self._driver, self._node
        assert driver is not None and node is not None
        driver.tell(method, *arguments)
        if self._network is not None:
            self._network.zone_changed()
        if self._zone_refusal is not None or node.published:
            self._zone_spoke.set()

    @property
    def _zone_refusal(self) -> str | None:
        """Why the zone will never take us as we are: a wrong secret, or a clock that is off."""
        refusals = (self._node and self._node.zone_refusal, self._link and self._link.refusal)
        return next((one for one in refusals if one), None)

    def _moved(self) -> None:
        """Our own addresses changed."""
        assert self._driver is not None and self._node is not None and self._link is not None
        self._link.network_changed()
        self._driver.tell(self._node.moved)

    def _resumed(self) -> None:
        """The machine has slept: NATs have forgotten us, and we may be somewhere else."""
        self._log.info("the machine has slept; the network is looked at anew")
        assert self._driver is not None and self._node is not None and self._link is not None
        self._link.network_changed()
        self._driver.tell(self._node.resumed)
        if self._network is not None:
            self._network.look()

    def _stand(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Our own network has us at these."""
        assert self._driver is not None and self._node is not None
        self._driver.tell(self._node.set_local, endpoints)

    def _other_ways(self, others: tuple[Source, ...], servers: tuple[Endpoint, ...]) -> None:
        """And could leave by these networks, too, from where these can be asked."""
        assert self._driver is not None and self._node is not None
        self._driver.tell(self._node.set_other_ways, others, servers)

    def _note(self, what: What, why: str, fields: dict[str, str]) -> None:
        """Something to remember, for ``explain``."""
        assert self._driver is not None and self._node is not None
        self._driver.tell(self._node.noted, str(what), why, tuple(fields.items()))

    def _translate(self, prefix: IPv6Network | None) -> None:
        """There is no IPv4 here, but a NAT64 with this prefix; or no more."""
        assert self._driver is not None and self._link is not None
        self._driver.translation.prefix = self._link.translation.prefix = prefix
        self._link.network_changed()

    def _look_outside(self, servers: tuple[Endpoint, ...]) -> None:
        """Ask these where they see us."""
        assert self._driver is not None and self._node is not None
        self._driver.tell(self._node.look_outside, servers)

    def _publish(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Others reach us at these."""
        assert self._driver is not None and self._node is not None
        self._driver.tell(self._node.set_endpoints, endpoints)

    async def _watch_papers(self, driver: Driver, node: Node) -> None:
        """``invite`` and ``revoke`` are other processes; they leave word in the issuer's files."""
        assert self._papers is not None
        while True:
            until, ledger = self._papers.invited(), self._papers.changed_ledger()
            if until is not None:
                driver.tell(node.invited, until)
            if ledger is not None:
                driver.tell(node.ledger_changed, ledger)
            await asyncio.sleep(_PAPERS_EVERY)

    # --- What the control socket and the stub resolver ask -----------------------------------

    def status(self) -> dict[str, Any]:
        """``host``, ``nat``, ``zone`` and ``peers`` of DESIGN §5, without ``schema``."""
        config, device, pump = self._config, self._device, self._pump
        driver, node = self._driver, self._node
        if driver is not None:
            driver.read_counters()
        about = None if node is None or driver is None else node.status(driver.now())
        network = self._network
        endpoint = next(iter(network.endpoints if network else ()), None)
        zone = dict(about["zone"]) if about else {"lease_s": None, "llq": None}
        if self._link is not None:
            zone |= {"server": self._link.server_text, "transport": self._link.transport_name}
        return {
            "host": {
                "name": config.fqdn,
                "id": None if self._host_id is None else str(self._host_id),
                "device": config.host.device if device is None else device.name,
                "mtu": None if device is None else device.mtu,
                "engine": None if pump is None else pump.engine,
                "aead": None if pump is None else pump.aead,
                "threads": config.engine.threads if pump and pump.engine == "native" else 1,
                "offloads": None if pump is None or device is None else _offloads(device, pump),
                "listen": config.host.listen,
                "endpoint": endpoint_text(endpoint),
                "drops": {} if pump is None else _drops(pump),
            },
            "nat": {} if network is None else network.status(),
            "certificate": about["certificate"] if about else None,
            "resolver": self._resolver_status(),
            "strangers": about["strangers"] | {"unheard": driver.unheard}
            if about and driver
            else None,
            "zone": zone,
            "home_agents": about["home_agents"] if about else [],
            "home_agent": _home_agent(about["home_agent"], pump) if about and pump else None,
            "mobility": about["mobility"] if about else None,
            "peers": about["peers"] if about else [],
        }

    def _resolver_status(self) -> dict[str, Any] | None:
        """Where the stub resolver listens, what it did, and whether systemd-resolved asks it."""
        if self._resolver is None:
            return None
        resolved = self._resolved
        return {
            "listen": endpoint_text(self._resolver.address),
            "integrated": resolved is not None and resolved.integrated,
            "reason": None if resolved is None else resolved.reason,
            "questions": dict(self._resolver.counters),
        }

    @property
    def services(self) -> Services:
        """What this host advertises, and what it finds."""
        return self._services

    async def reach(self, name: str) -> IPv6Address:
        """Makes the tunnel to ``name`` (label or full name). Raises :class:`Unreachable`."""
        answer = await self._ask("reach", name)
        assert isinstance(answer, do.Reached)
        return answer.host_id

    async def ping(self, name: str, count: int) -> dict[str, Any]:
        """``name``, ``id``, ``path``, ``endpoint``, ``home_agent`` (of a relayed path), ``sent``,
        ``rtt_ms`` (list; null is lost).

        Raises :class:`Unreachable` if the tunnel cannot be made.
        """
        host_id = await self.reach(name)
        times: list[float | None] = []
        for number in range(count):
            if number:
                await asyncio.sleep(_PING_INTERVAL)
            answer = await self._ask("ping", name)
            assert isinstance(answer, do.Pong)
            times.append(None if answer.rtt is None else round(answer.rtt * 1000, 3))
        peers = self.status()["peers"]
        peer = next((peer for peer in peers if peer["id"] == str(host_id)), {"name": name})
        return {
            "name": peer["name"],
            "id": str(host_id),
            "path": peer.get("path"),
            "endpoint": peer.get("endpoint"),
            "home_agent": peer.get("home_agent"),
            "sent": count,
            "rtt_ms": times,
        }

    async def lookup(self, name: str) -> dict[str, Any]:
        """``name``, ``id``, ``target``, ``endpoints``, ``info``. Raises :class:`Unreachable`."""
        found = await self._ask("lookup", name)
        assert isinstance(found, do.Found)
        return {
            "name": found.name,
            "id": str(found.host_id),
            "target": found.target or None,
            "endpoints": [endpoint_text(endpoint) for endpoint in found.endpoints],
            "info": list(found.info),
        }

    async def explain(self, name: str) -> dict[str, Any]:
        """How the path to ``name`` was chosen (:meth:`tunnel.node.Node.explain`).

        Raises :class:`Unreachable` for somebody of whom nothing is known.
        """
        node, driver = self._node, self._driver
        if node is None or driver is None:
            raise Unreachable("this host is not running; try again when it is up")
        driver.read_counters()
        found = node.explain(name, driver.now())
        if found is None:
            raise Unreachable(f"nothing is known of {name}; see `autotunnel status` for the peers")
        return found

    async def export_keys(self, name: str) -> dict[str, Any]:
        """``esp_sa``, ``ikev2_decryption_table`` and ``notes``: what Wireshark needs to open the
        packets between us and ``name``. It is logged. Raises :class:`Unreachable`."""
        if self._node is None:
            raise Unreachable("this host is not running; try again when it is up")
        tables = self._node.export_keys(name)
        if not (tables.esp_sa or tables.ikev2_decryption_table or tables.notes):
            raise Unreachable(f"there is no SA with {name}; try again when it is up")
        self._log.warning("the keys of SAs were handed out for Wireshark", peer=name)
        return {
            "esp_sa": tables.esp_sa,
            "ikev2_decryption_table": tables.ikev2_decryption_table,
            "notes": tables.notes,
        }

    async def _ask(self, request: str, *arguments: Any) -> do.Command:
        if self._driver is None or self._node is None or self._stopping.is_set():
            raise Unreachable("this host is not running; try again when it is up")
        if self._link is not None:
            self._link.hurry()
        method = getattr(self._node, request)
        answer = await self._requests.ask(self._driver.tell, method, *arguments)
        if isinstance(answer, do.NotReached):
            raise Unreachable(answer.reason, answer.no_such_host)
        return answer


def _make_pump(
    engine: str, device: Device, pair: UdpPair, host_id: IPv6Address, offload: bool
) -> Pump:
    first, *more = (
        Queue(fd, pair.fd(socket.AF_INET, number), pair.fd(socket.AF_INET6, number))
        for number, fd in enumerate(device.fds)
    )
    if engine == "native":
        from fastpath._pump import NativePump  # only there where it was built

        pump = NativePump(*(*first, host_id.packed, device.vnet_hdr), offload=offload, more=more)
        pump.set_mtu(device.mtu)
        return pump
    from tunnel.io.portable_pump import PortablePump

    return PortablePump(*first, host_id.packed, device.vnet_hdr, more=more)


def _offloads(device: Device, pump: Pump) -> dict[str, dict[str, Any]]:
    return offloads.report(offloads.states_of(device.offloads, pump.offloads()), pump.engine)


def _home_agent(facts: dict[str, Any] | None, pump: Pump) -> dict[str, Any] | None:
    """What this host does as a home agent, with what its engine has relayed and what not."""
    if facts is None:
        return None
    counters = pump.counters()
    dropped = {name: counters.get(f"drop_{name}", 0) for name in _RELAY_DROPS}
    return facts | {
        "relayed_packets": counters.get("relayed_packets", 0),
        "relayed_bytes": counters.get("relayed_octets", 0),
        "drops": {name: count for name, count in dropped.items() if count},
    }


def _drops(pump: Pump) -> dict[str, int]:
    counters = pump.counters().items()
    return {name.removeprefix("drop_"): n for name, n in counters if name.startswith("drop_")}


async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
