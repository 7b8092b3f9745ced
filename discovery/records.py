"""What the zone says of a host, and the UPDATE that makes it say so (B11-B20, DESIGN "Records").

For host ``desk`` of ``alice.example``::

    desk.alice.example.                  AAAA  host id                 and nothing else of ours
    _autotunnel._udp.desk.alice.example. SRV   0 0 port  <target>      outer IPv4 endpoint
                                         SRV   1 0 port  <target>-v6   outer IPv6 endpoint
    <target>.alice.example.              A     outer IPv4 address
                                         AAAA  host id (RFC 6281 §5.2: owned by the SRV target)
                                         TXT   device information
    <target>-v6.alice.example.           AAAA  outer IPv6 address, alone
    _autotunnel6.desk.alice.example.     AAAA  host ids of the home agents that relay for it
    _autotunnel._udp.alice.example.      PTR   desk.alice.example.     the list of all hosts

and what its owner advertises (:mod:`discovery.services`).

``<target>`` is the ``AutoTunnel-<EUI64>`` label. There is never an A beside the AAAA of the host's
name: RFC 6724 would prefer it, and the application would speak in clear.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import dns.edns
import dns.exception
import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rdtypes.IN.SRV
import dns.update

from discovery import services
from discovery.types import Endpoint, HostRecords, Service

A: Final = int(dns.rdatatype.A)
AAAA: Final = int(dns.rdatatype.AAAA)
PTR: Final = int(dns.rdatatype.PTR)
SRV: Final = int(dns.rdatatype.SRV)
TXT: Final = int(dns.rdatatype.TXT)

SERVICE: Final = "_autotunnel._udp"  # RFC 6281 §3
RELAYS: Final = "_autotunnel6"
MAX_HOME_AGENTS: Final = 4
"""Of one host: it registers with one, and with another for the day on which that one fails."""

OUTER6_SUFFIX: Final = "-v6"

RECORD_TTL: Final = 120
"""Seconds. RFC 6281 §5.2: the TTL governs caches only; the lease governs the server."""

PRIORITY4: Final = 0  # B14
PRIORITY6: Final = 1
WEIGHT: Final = 0  # B14

UDP_PAYLOAD: Final = 1232  # octets, announced in EDNS
LEASE_OPTION: Final = 2  # RFC 9664 §4
MAX_INFO: Final = 255  # octets of one TXT string

_ULA_FIRST: Final = 0xFC
_MAX_UPDATE: Final = 65535  # octets: what fits in a message over TLS or TCP


class RecordsError(ValueError):
    """The records cannot be published or read; the message says what is wrong."""


# --- Names ----------------------------------------------------------------------------------


def _name(text: str) -> dns.name.Name:
    try:
        return dns.name.from_text(text)
    except (dns.exception.DNSException, UnicodeError) as error:
        raise RecordsError(f"{text!r} is not a domain name") from error


def _below(label: str, domain: str) -> dns.name.Name:
    """Return the name one label below the domain; a label may not smuggle in a dot."""
    if not label or "." in label or "\\" in label:
        raise RecordsError(f"{label!r} is not a label")
    return _name(f"{label}.{domain.rstrip('.')}.")


def host_name(label: str, domain: str) -> dns.name.Name:
    """Return ``<host>.<domain>``. Raises :exc:`RecordsError`, as all functions for names do."""
    return _below(label, domain)


def service_name(label: str, domain: str) -> dns.name.Name:
    """Return ``_autotunnel._udp.<host>.<domain>`` (B13)."""
    return _name(f"{SERVICE}.{_below(label, domain).to_text()}")


def relays_name(label: str, domain: str) -> dns.name.Name:
    """Return ``_autotunnel6.<host>.<domain>``, whose AAAA records are host ids of home agents."""
    return _name(f"{RELAYS}.{_below(label, domain).to_text()}")


def hosts_name(domain: str) -> dns.name.Name:
    """Return ``_autotunnel._udp.<domain>``, whose PTR records list the account's hosts."""
    return _name(f"{SERVICE}.{domain.rstrip('.')}.")


def target_name(target: str, domain: str) -> dns.name.Name:
    """Return ``AutoTunnel-<EUI64>.<domain>`` (B16)."""
    return _below(target, domain)


def outer6_name(target: str, domain: str) -> dns.name.Name:
    """Return the SRV target that holds only the outer IPv6 address."""
    return _below(target + OUTER6_SUFFIX, domain)


def label_of(name: dns.name.Name, domain: str) -> str | None:
    """Return the label of a name exactly one label below the domain, else ``None``."""
    origin = _name(domain.rstrip(".") + ".")
    if len(name.labels) != len(origin.labels) + 1 or not name.is_subdomain(origin):
        return None
    label = name.labels[0].decode("latin-1")
    plain = label.isascii() and label.isprintable() and not set(label) & set('. \\"')
    return label if plain else None


def target_of(name: dns.name.Name, domain: str) -> str | None:
    """Return the target label that an SRV target (of either kind) stands for, else ``None``."""
    label = label_of(name, domain)
    return None if label is None else label.removesuffix(OUTER6_SUFFIX)


# --- Writing --------------------------------------------------------------------------------


def update_message(
    records: HostRecords,
    domain: str,
    identity: int,
    *,
    lease: int | None = None,
    stale_targets: Iterable[str] = (),
) -> bytes:
    """Return the UPDATE (unsigned) that replaces all of the host's records.

    It has no prerequisites, so that it serves as registration and as refresh (RFC 9664), and
    changes nothing where the zone says the same already. ``lease`` in seconds is asked for if
    given; ``stale_targets`` are target labels of earlier boots to be removed. ``identity`` is the
    message ID. Raises :exc:`RecordsError`.
    """
    update = empty_update(domain, identity, lease)
    for target in stale_targets:
        _remove_target(update, target, domain)
    _remove_target(update, records.target, domain)
    host, service = host_name(records.label, domain), service_name(records.label, domain)
    update.delete(host, "AAAA")
    update.delete(service, "SRV")
    update.delete(relays_name(records.label, domain), "AAAA")
    for gone in records.withdrawn:
        _remove_service(update, gone, host, domain)
    for offered in records.services:
        for rdtype in ("SRV", "TXT"):
            update.delete(services.instance_name(offered, domain), rdtype)
    for name, rdata in _rdatas(records, domain):
        update.add(name, RECORD_TTL, rdata)
    return update.to_wire(max_size=_MAX_UPDATE)


def withdrawal_message(records: HostRecords, domain: str, identity: int) -> bytes:
    """Return the UPDATE (unsigned) that removes all of the host's records."""
    update = empty_update(domain, identity, None)
    host = host_name(records.label, domain)
    update.delete(host, "AAAA")
    update.delete(service_name(records.label, domain), "SRV")
    update.delete(relays_name(records.label, domain), "AAAA")
    _remove_target(update, records.target, domain)
    update.delete(hosts_name(domain), _ptr(host))
    for gone in (*records.services, *records.withdrawn):
        _remove_service(update, gone, host, domain)
    return update.to_wire(max_size=_MAX_UPDATE)


def empty_update(domain: str, identity: int, lease: int | None) -> dns.update.UpdateMessage:
    """Return an UPDATE of the zone that changes nothing yet, asking for ``lease`` if given."""
    update = dns.update.UpdateMessage(_name(domain.rstrip(".") + "."), id=identity)
    options: list[dns.edns.Option] = []
    if lease is not None:
        options.append(
            dns.edns.GenericOption(dns.edns.OptionType.make(LEASE_OPTION), lease.to_bytes(4))
        )
    update.use_edns(0, payload=UDP_PAYLOAD, options=options)
    return update


def _remove_target(update: dns.update.UpdateMessage, target: str, domain: str) -> None:
    name = target_name(target, domain)
    for rdtype in ("A", "AAAA", "TXT"):
        update.delete(name, rdtype)
    update.delete(outer6_name(target, domain), "AAAA")


def _remove_service(
    update: dns.update.UpdateMessage, service: Service, host: dns.name.Name, domain: str
) -> None:
    """Remove exactly what we wrote: another host may have taken the name since."""
    for name, rdata in services.rdatas(service, host, domain):
        update.delete(name, rdata)


def _rdatas(records: HostRecords, domain: str) -> list[tuple[dns.name.Name, dns.rdata.Rdata]]:
    """Return (owner name, data) of every record of the host."""
    host, service = host_name(records.label, domain), service_name(records.label, domain)
    target = target_name(records.target, domain)
    outer4, outer6 = split_endpoints(records.endpoints)
    made: list[tuple[dns.name.Name, dns.rdata.Rdata]] = [
        (host, _aaaa(str(records.host_id))),
        (target, _aaaa(str(records.host_id))),
        (target, _txt(records.info)),
        (hosts_name(domain), _ptr(host)),
    ]
    if outer4 is not None:
        made += [(service, _srv(PRIORITY4, outer4[1], target)), (target, _a(outer4[0]))]
    if outer6 is not None:
        name6 = outer6_name(records.target, domain)
        made += [(service, _srv(PRIORITY6, outer6[1], name6)), (name6, _aaaa(outer6[0]))]
    relays = relays_name(records.label, domain)
    made += [(relays, _aaaa(str(one))) for one in records.home_agents[:MAX_HOME_AGENTS]]
    for offered in records.services:
        made += services.rdatas(offered, host, domain)
    return [*made, *services.shared_rdatas(records.services, domain)]


def split_endpoints(endpoints: Iterable[Endpoint]) -> tuple[Endpoint | None, Endpoint | None]:
    """Return the (IPv4, IPv6) endpoints. Raises :exc:`RecordsError` for two of a kind."""
    found: dict[int, Endpoint] = {}
    for address, port in endpoints:
        try:
            version = ip_address(address).version
        except ValueError:
            raise RecordsError(f"{address!r} is not an address") from None
        if version in found or not 1 <= port <= 65535:
            raise RecordsError("a host publishes at most one IPv4 and one IPv6 endpoint")
        found[version] = (address, port)
    return found.get(4), found.get(6)


def _a(address: str) -> dns.rdata.Rdata:
    return dns.rdata.from_text("IN", "A", address)


def _aaaa(address: str) -> dns.rdata.Rdata:
    return dns.rdata.from_text("IN", "AAAA", address)


def _srv(priority: int, port: int, target: dns.name.Name) -> dns.rdata.Rdata:
    return dns.rdata.from_text("IN", "SRV", f"{priority} {WEIGHT} {port} {target.to_text()}")


def _ptr(target: dns.name.Name) -> dns.rdata.Rdata:
    return dns.rdata.from_text("IN", "PTR", target.to_text())


def _txt(info: tuple[str, ...]) -> dns.rdata.Rdata:
    strings = [text.encode() for text in info] or [b""]  # RFC 6763 §6.1: never without a string
    if any(len(text) > MAX_INFO for text in strings):
        raise RecordsError(f"a string of the device information is longer than {MAX_INFO} octets")
    return dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, dns.rdatatype.TXT, strings)


# --- Reading --------------------------------------------------------------------------------


def host_id_in(answers: Iterable[dns.rdata.Rdata]) -> IPv6Address | None:
    """Return the host id among AAAA data: the first unique local address (fc00::/7)."""
    for rdata in answers:
        if isinstance(rdata, dns.rdtypes.IN.AAAA.AAAA):
            address = IPv6Address(rdata.address)
            if address.packed[0] & 0xFE == _ULA_FIRST:
                return address
    return None


def home_agents_in(answers: Iterable[dns.rdata.Rdata]) -> tuple[IPv6Address, ...]:
    """Return the host ids of home agents among AAAA data, in order, :data:`MAX_HOME_AGENTS` at
    most: a record set has no order of its own, so that all who read it take the same first."""
    found = {
        IPv6Address(rdata.address)
        for rdata in answers
        if isinstance(rdata, dns.rdtypes.IN.AAAA.AAAA)
    }
    return tuple(sorted(a for a in found if a.packed[0] & 0xFE == _ULA_FIRST))[:MAX_HOME_AGENTS]


def services_in(
    answers: Iterable[dns.rdata.Rdata], domain: str
) -> tuple[tuple[int, int, dns.name.Name], ...]:
    """Return (priority, port, target) of the usable SRV data, best first (RFC 2782).

    Left out: port 0, target ``.`` (service not available), and targets outside the zone, which
    nobody of the account could have signed for.
    """
    found = [
        (rdata.priority, rdata.port, rdata.target)
        for rdata in answers
        if isinstance(rdata, dns.rdtypes.IN.SRV.SRV)
        and rdata.port
        and target_of(rdata.target, domain)
    ]
    return tuple(sorted(found))


def outer_address_in(
    answers: Iterable[dns.rdata.Rdata], priority: int, host_id: IPv6Address
) -> str | None:
    """Return the outer address of an SRV target: of priority 0 its A, of others its AAAA.

    The AAAA at the target of priority 0 is the host id (B20), never an endpoint. Addresses to
    which no datagram can be sent (multicast, unspecified, limited broadcast) are left out.
    """
    for rdata in answers:
        address: IPv4Address | IPv6Address
        if priority == PRIORITY4 and isinstance(rdata, dns.rdtypes.IN.A.A):
            address = IPv4Address(rdata.address)
        elif priority != PRIORITY4 and isinstance(rdata, dns.rdtypes.IN.AAAA.AAAA):
            address = IPv6Address(rdata.address)
        else:
            continue
        usable = not (address.is_multicast or address.is_unspecified or address == host_id)
        if usable and str(address) != "255.255.255.255":
            return str(address)
    return None


def info_in(answers: Iterable[dns.rdata.Rdata]) -> tuple[str, ...]:
    """Return the strings of the device information; undecodable octets are replaced."""
    for rdata in answers:
        if isinstance(rdata, dns.rdtypes.ANY.TXT.TXT):
            return tuple(text.decode("utf-8", "replace") for text in rdata.strings if text)
    return ()


def labels_in(answers: Iterable[dns.rdata.Rdata], domain: str) -> tuple[str, ...]:
    """Return the labels of the host list's PTR data, sorted, each once."""
    found = (
        label_of(rdata.target, domain)
        for rdata in answers
        if isinstance(rdata, dns.rdtypes.ANY.PTR.PTR)
    )
    return tuple(sorted({label.lower() for label in found if label is not None}))
