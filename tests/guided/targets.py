"""The list of what is fuzzed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.guided import parsers, sessions, texts


@dataclass(frozen=True)
class Target:
    """``run`` takes any octets and raises only if something is wrong. ``weight`` is its part of
    a common number of inputs; ``octets`` is how long an input may be."""

    name: str
    seeds: Callable[[], Sequence[bytes]]
    run: Callable[[bytes], None]
    weight: int = 100
    octets: int = 512


ALL = {
    target.name: target
    for target in (
        Target("header", parsers.header_seeds, parsers.header, 150, 128),
        Target("notify", parsers.notify_seeds, parsers.notify, 150, 128),
        Target("selectors", parsers.selector_seeds, parsers.selectors, 100),
        Target("proposals", parsers.proposal_seeds, parsers.proposals, 80),
        Target("payloads", parsers.payload_seeds, parsers.payloads, 150, 1500),
        Target("glance", parsers.glance_seeds, parsers.glances, 80, 700),
        Target("sealed", parsers.sealed_seeds, parsers.sealed, 60, 600),
        Target("fragments", parsers.fragment_seeds, parsers.fragments, 30, 256),
        Target("window", parsers.window_seeds, parsers.window, 40, 128),
        Target("exchanges", parsers.exchange_seeds, parsers.exchanges, 20, 1600),
        Target("signature", parsers.signature_seeds, parsers.signatures, 60, 600),
        Target("certificates", parsers.certificate_seeds, parsers.certificates, 20, 1500),
        Target("signing", parsers.signing_seeds, parsers.signing_messages, 40, 1500),
        Target("requests", parsers.request_seeds, parsers.requests, 20, 1000),
        Target("revocations", parsers.revocation_seeds, parsers.revocations, 20, 1000),
        Target("invitation", texts.invitation_seeds, texts.invitation, 80, 400),
        Target("secret", texts.secret_seeds, texts.secret, 60, 128),
        Target("ledger", texts.ledger_seeds, texts.ledger, 30, 800),
        Target("voucher", texts.voucher_seeds, texts.voucher, 30, 300),
        Target("strangers", sessions.stranger_seeds, sessions.strangers, 20, 1600),
        Target("standing", sessions.standing_seeds, sessions.standing, 40, 1600),
        Target("session", sessions.session_seeds, sessions.session, 2, 200),
    )
}
