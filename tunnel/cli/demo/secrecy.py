"""What an eavesdropper on the internet must not see, and the look for it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from pathlib import Path

from tunnel.io.lab import Sighting, find_all

SAMPLES = 32
SAMPLE_OCTETS = 24
MARK_EVERY = 1024
"""The file has a readable mark in every KiB, so that any of its packets would show one."""


@dataclass(slots=True)
class Secrets:
    """The needles by kind: what it is → its octets."""

    file: dict[str, bytes] = field(default_factory=dict)
    host_ids: dict[str, bytes] = field(default_factory=dict)
    names: dict[str, bytes] = field(default_factory=dict)

    def add_host(self, label: str, domain: str, host_id: str) -> None:
        """A host's name (as text and as DNS label) and its host id (as octets and as text)."""
        for text in {label, domain, f"{label}.{domain}"}:
            self.names[f"the text {text}"] = text.encode()
        for part in (label, *domain.split(".")[:2]):
            self.names[f"the DNS label {part}"] = bytes([len(part)]) + part.encode()
        address = IPv6Address(host_id)
        self.host_ids[f"the octets of {host_id}"] = address.packed
        self.host_ids[f"the text {host_id}"] = address.compressed.encode()
        self.host_ids[f"the long text of {host_id}"] = address.exploded.encode()

    def look(self, capture: Path) -> list[Sighting]:
        """All that is visible in a capture."""
        return find_all(capture, {**self.file, **self.host_ids, **self.names})


def make_file(path: Path, octets: int) -> dict[str, bytes]:
    """Write a file of random octets with marks; the needles that give it (or HTTP) away."""
    mark = f"autotunnel-demo-{secrets.token_hex(8)}".encode()
    with path.open("wb") as file:
        for _ in range(0, octets, MARK_EVERY):
            file.write(mark + secrets.token_bytes(MARK_EVERY - len(mark)))
    needles = {
        "the file's mark": mark,
        "the request line": f"GET /{path.name}".encode(),
        "curl's name": b"User-Agent: curl/",
        "the server's name": b"Server: SimpleHTTP/",
    }
    with path.open("rb") as file:
        for number in range(SAMPLES):
            place = secrets.randbelow(octets - SAMPLE_OCTETS)
            file.seek(place)
            needles[f"sample {number} of the file, octet {place}"] = file.read(SAMPLE_OCTETS)
    return needles
