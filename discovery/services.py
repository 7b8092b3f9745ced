"""Services in the account's zone: DNS-SD (RFC 6763), as names and records.

For the instance ``Desk's shell`` of ``_ssh._tcp`` on host ``desk`` of ``alice.example``::

    _services._dns-sd._udp.alice.example.  PTR  _ssh._tcp.alice.example.       §9, all types
    _ssh._tcp.alice.example.               PTR  Desk's shell._ssh._tcp.…       §4.1, all instances
    Desk's shell._ssh._tcp.alice.example.  SRV  0 0 22 desk.alice.example.     §5
                                           TXT  "k=v" …, never without a string  §6.1
    b._dns-sd._udp.alice.example.          PTR  alice.example.                 §11; lb. and db. too

The SRV's target is the host's name, whose AAAA is its host id: nothing about a service leads past
the tunnel. The records stand in the same UPDATE and under the same lease as the host's own. The
lists of types and of domains are shared by all hosts, so no host removes them: their lease does.

Whatever is read here may come from any host of the account: names that are no services, targets
that are no hosts of the account and texts beyond §6.2's limit are left out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.SRV

from discovery.types import Service

MAX_SERVICES: Final = 32  # of one host
MAX_INSTANCE: Final = 63  # octets, RFC 6763 §4.1.1: one DNS label
MAX_TEXT: Final = 255  # octets of one string
MAX_TEXTS: Final = 1300  # octets of all strings with their length octets, RFC 6763 §6.2

TYPES_PREFIX: Final = "_services._dns-sd._udp"  # RFC 6763 §9
DOMAIN_KINDS: Final = ("b", "db", "lb")
"""RFC 6763 §11: where to browse, by choice, by default and by itself. ``r`` and ``dr`` (where to
register) are absent: a service gets in by ``autotunnel advertise`` only (decision 0046)."""

_TYPE: Final = re.compile(
    r"_(?!-)(?![^.]*--)(?=[^.]*[a-z])[a-z0-9-]{1,15}(?<!-)\._(?:tcp|udp)", re.IGNORECASE
)
"""RFC 6335 §5.1: 1 to 15 letters, digits and hyphens, a letter among them; RFC 6763 §7."""
_OURS: Final = re.compile(r"_(autotunnel|dns-sd|dns-(update|llq|push|query))", re.IGNORECASE)


class ServiceError(ValueError):
    """This cannot be advertised; the message says why."""


# --- What a person may say ------------------------------------------------------------------


def check_type(text: str) -> str:
    """Return a service type like ``_ssh._tcp`` in lower case. Raises :exc:`ServiceError`."""
    if not _TYPE.fullmatch(text):
        raise ServiceError(
            f'{text!r} is not a service type; write it like "_ssh._tcp" or "_ipp._udp"'
        )
    if _OURS.match(text):
        raise ServiceError(f"{text} is autotunnel's own")
    return text.lower()


def check_instance(text: str) -> str:
    """Return a name for an instance in NFC (RFC 6763 §4.1.3). Raises :exc:`ServiceError`."""
    name = unicodedata.normalize("NFC", text)
    if not name or any(unicodedata.category(letter) == "Cc" for letter in name):
        raise ServiceError("a service's name has at least one letter and no control characters")
    try:
        octets = len(name.encode())
    except UnicodeEncodeError:
        raise ServiceError("a service's name must be text") from None
    if octets > MAX_INSTANCE:
        raise ServiceError(f"{name!r} is longer than {MAX_INSTANCE} octets")
    return name


def check_texts(texts: Iterable[str]) -> tuple[str, ...]:
    """Return ``key=value`` strings (RFC 6763 §6.4). Raises :exc:`ServiceError`."""
    checked = tuple(texts)
    seen: set[str] = set()
    for text in checked:
        key = text.partition("=")[0].lower()
        if not key or not all(" " <= letter <= "~" for letter in key):
            raise ServiceError(f'{text!r} has no key; write it like "path=/photos"')
        if key in seen:
            raise ServiceError(f"the key {key!r} is given twice")
        seen.add(key)
        if len(_octets(text)) > MAX_TEXT:
            raise ServiceError(f"{text[:20]!r}… is longer than {MAX_TEXT} octets")
    if sum(len(_octets(text)) + 1 for text in checked) > MAX_TEXTS:
        raise ServiceError(f"the texts are longer than {MAX_TEXTS} octets together")
    return checked


def _octets(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ServiceError(f"{text!r} is not text") from None


def checked_service(
    kind: object, port: object, name: object, texts: Iterable[object] = ()
) -> Service:
    """Return what was said as a :class:`Service`. Raises :exc:`ServiceError`."""
    strings = list(texts)
    if not isinstance(kind, str) or not isinstance(name, str):
        raise ServiceError("a service has a type and a name")
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise ServiceError(f"{port!r} is not a port; it is a number from 1 to 65535")
    if not all(isinstance(text, str) for text in strings):
        raise ServiceError("the texts of a service must be strings")
    texts_checked = check_texts(str(text) for text in strings)
    return Service(check_type(kind), check_instance(name), port, texts_checked)


# --- Names ----------------------------------------------------------------------------------


def _origin(domain: str) -> dns.name.Name:
    return dns.name.from_text(domain.rstrip(".") + ".")


def type_name(kind: str, domain: str) -> dns.name.Name:
    """Return ``_ssh._tcp.<domain>``."""
    return dns.name.from_text(kind, _origin(domain))


def instance_name(service: Service, domain: str) -> dns.name.Name:
    """Return ``<instance>._ssh._tcp.<domain>``. Raises :exc:`ServiceError` if it is too long."""
    try:
        labels = (service.name.encode(), *type_name(service.type, domain).labels)
        return dns.name.Name(labels)
    except dns.exception.DNSException:
        raise ServiceError(f"the name {service.name!r} is too long for {domain}") from None


def types_name(domain: str) -> dns.name.Name:
    """Return ``_services._dns-sd._udp.<domain>``, whose PTR records list all types."""
    return dns.name.from_text(TYPES_PREFIX, _origin(domain))


def domain_names(domain: str) -> list[dns.name.Name]:
    """Return the names whose PTR records say that ``domain`` can be browsed."""
    return [dns.name.from_text(f"{kind}._dns-sd._udp", _origin(domain)) for kind in DOMAIN_KINDS]


def is_service_question(below: tuple[bytes, ...]) -> bool:
    """Say whether labels below the domain are a name of DNS-SD that applications may ask for:
    ``[<instance>.]_type._proto``, ``<subtype>._sub._type._proto`` or the list of types."""
    labels = [label.lower() for label in below]
    if labels == [b"_services", b"_dns-sd", b"_udp"]:
        return True
    if not 2 <= len(labels) <= 4 or (len(labels) == 4 and labels[1] != b"_sub"):
        return False
    kind = b".".join(labels[-2:]).decode("latin-1")
    return bool(_TYPE.fullmatch(kind)) and not _OURS.match(kind)


# --- Writing --------------------------------------------------------------------------------


def rdatas(
    service: Service, host: dns.name.Name, domain: str
) -> Iterator[tuple[dns.name.Name, dns.rdata.Rdata]]:
    """Return (owner name, data) of a service's own records on the host of that name."""
    instance = instance_name(service, domain)
    yield type_name(service.type, domain), _ptr(instance)
    yield instance, dns.rdata.from_text("IN", "SRV", f"0 0 {service.port} {host.to_text()}")
    strings = [text.encode() for text in service.texts] or [b""]
    yield instance, dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, dns.rdatatype.TXT, strings)


def shared_rdatas(
    services: Iterable[Service], domain: str
) -> Iterator[tuple[dns.name.Name, dns.rdata.Rdata]]:
    """Return (owner name, data) of the lists of types and of domains to browse."""
    kinds = sorted({service.type for service in services})
    for kind in kinds:
        yield types_name(domain), _ptr(type_name(kind, domain))
    for name in domain_names(domain) if kinds else ():
        yield name, _ptr(_origin(domain))


def _ptr(target: dns.name.Name) -> dns.rdata.Rdata:
    return dns.rdata.from_text("IN", "PTR", target.to_text())


# --- Reading --------------------------------------------------------------------------------


def types_in(answers: Iterable[dns.rdata.Rdata], domain: str) -> tuple[str, ...]:
    """Return the service types of a list of types, sorted, each once."""
    origin, found = _origin(domain), set()
    for target in _targets(answers):
        if len(target.labels) == len(origin.labels) + 2 and target.is_subdomain(origin):
            kind = b".".join(target.labels[:2]).decode("latin-1").lower()
            if _TYPE.fullmatch(kind) and not _OURS.match(kind):
                found.add(kind)
    return tuple(sorted(found))


def instances_in(
    answers: Iterable[dns.rdata.Rdata], kind: str, domain: str
) -> tuple[dns.name.Name, ...]:
    """Return the names of the instances of one type, sorted, each once."""
    above, found = type_name(kind, domain), set()
    for target in _targets(answers):
        below = len(target.labels) == len(above.labels) + 1 and target.is_subdomain(above)
        if below and instance_text(target) is not None:
            found.add(target)
    return tuple(sorted(found))


def instance_text(name: dns.name.Name) -> str | None:
    """Return the instance's name for a person, ``None`` for one that is no such name."""
    try:
        return check_instance(name.labels[0].decode())
    except (UnicodeDecodeError, ServiceError):
        return None


def place_in(answers: Iterable[dns.rdata.Rdata], domain: str) -> tuple[str, int] | None:
    """Return the host label and port of a service's SRV data (RFC 2782: least priority first,
    target ``.`` and port 0 are no service); targets outside of the account are left out."""
    origin = _origin(domain)
    found = []
    for rdata in answers:
        if isinstance(rdata, dns.rdtypes.IN.SRV.SRV) and rdata.port:
            target = rdata.target
            if len(target.labels) == len(origin.labels) + 1 and target.is_subdomain(origin):
                label = target.labels[0].decode("latin-1").lower()
                if label.isascii() and label.isprintable() and not set(label) & set('. \\"_'):
                    found.append((rdata.priority, -rdata.weight, label, rdata.port))
    return min(found)[2:] if found else None


def inside(answers: Iterable[dns.rdata.Rdata], domain: str) -> Iterator[dns.rdata.Rdata]:
    """Return the data that an application may have: what points out of the account is left out,
    since it would lead past the tunnel."""
    origin = _origin(domain)
    for rdata in answers:
        target = getattr(rdata, "target", None)
        if target is None or target.is_subdomain(origin):
            yield rdata


def texts_in(answers: Iterable[dns.rdata.Rdata]) -> tuple[str, ...]:
    """Return a service's texts: those with a key, the first of each key (RFC 6763 §6.4)."""
    texts: dict[str, str] = {}
    for rdata in answers:
        if not isinstance(rdata, dns.rdtypes.ANY.TXT.TXT):
            continue
        if sum(len(string) + 1 for string in rdata.strings) > MAX_TEXTS:
            continue
        for string in rdata.strings:
            text = string.decode("utf-8", "replace")
            key = text.partition("=")[0].lower()
            if key and all(" " <= letter <= "~" for letter in key):
                texts.setdefault(key, text)
    return tuple(texts.values())


def _targets(answers: Iterable[dns.rdata.Rdata]) -> Iterator[dns.name.Name]:
    for rdata in answers:
        if isinstance(rdata, dns.rdtypes.ANY.PTR.PTR):
            yield rdata.target
