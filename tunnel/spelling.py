"""How people write labels, domains, endpoints and host ids; every refusal is a sentence."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

Endpoint = tuple[str, int]
"""An (address text, port)."""

_LABEL_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_ULA_FIRST = 0xFC


def is_label(text: str) -> bool:
    """Whether ``text`` is one lower-case host label (RFC 952 letters, at most 63, RFC 1035)."""
    good_ends = not text.startswith("-") and not text.endswith("-")
    return 0 < len(text) <= 63 and good_ends and set(text) <= _LABEL_LETTERS


def is_domain(text: str) -> bool:
    """Whether ``text`` is a domain of at least two labels, without a trailing dot.

    Room is left for the names that the zone makes below it (RFC 1035: 255 octets in all).
    """
    labels = text.split(".")
    return len(labels) >= 2 and len(text) <= 150 and all(is_label(label) for label in labels)


def parse_endpoint(text: str, default_port: int | None = None) -> Endpoint:
    """``address:port``, ``[address]:port``, or a bare host if there is a default port.

    The host part may be a name where the caller allows one; only the port is checked here.
    Raises ValueError with a sentence.
    """
    host, port = _split_endpoint(text)
    if port is None:
        if default_port is None:
            raise ValueError(f"{text!r} has no port")
        return host, default_port
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
        raise ValueError(f"the port in {text!r} is not a number from 1 to 65535")
    return host, int(port)


def _split_endpoint(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not [address]:port")
        port = rest[1:] if rest else None
    elif text.count(":") > 1:  # a bare IPv6 address
        host, port = text, None
    else:
        host, colon, after = text.partition(":")
        port = after if colon else None
    if not host or any(character.isspace() or not character.isprintable() for character in host):
        raise ValueError(f"{text!r} names no address")
    return host, port


def parse_address_endpoint(text: str, default_port: int | None = None) -> Endpoint:
    """As :func:`parse_endpoint`, and the host must be an address (given compressed)."""
    host, port = parse_endpoint(text, default_port)
    try:
        return str(ip_address(host)), port
    except ValueError:
        raise ValueError(f"{host!r} is not an IPv4 or IPv6 address") from None


def parse_ula(text: str) -> IPv6Address:
    """An IPv6 unique local address (RFC 4193: fc00::/7). Raises ValueError with a sentence."""
    try:
        address = IPv6Address(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an IPv6 address") from None
    if address.packed[0] & 0xFE != _ULA_FIRST or address.scope_id:
        raise ValueError(f"{text} is not a unique local address (fc00::/7)")
    return address
