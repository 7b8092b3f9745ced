"""The state machine as tables: every state meets every message (RFC 7296 §2.25, §2.21, §1.2).

The first table is about which requests a state of an IKE SA takes at all. The second is §2.25: what
we are doing on an SA that stands, and what the peer asks meanwhile. The third is about answers that
nobody waits for. Every message is well formed and sealed with the right keys: what is refused is
refused by the state alone.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from keys.ike.create_child import CreateChild
from keys.ike.header import Exchange, Header
from keys.ike.informational import Liveness, delete_child
from keys.ike.notify import Notify, NotifyType
from keys.ike.payloads import Contents, Delete, decode_chain, decode_contents
from keys.ike.rekey_ike import RekeyIke
from keys.ike.sa import IkeSa, SaState, plain_message
from keys.ike.types import ChildPolicy, SendIke, Traffic
from tests.keys.ike.net import DELAY, Net, Side, pair
from tests.keys.ike.test_hostile import ask, sa_of

DNS = Traffic(17, peer_ports=(53, 53))


def up() -> tuple[Net, Side, Side]:
    """Two hosts with one child for everything and one beside it."""
    net, desk, lap = pair()
    net.connect(desk, lap, more=(ChildPolicy(DNS),))
    net.play(2)
    assert net.pair_is_up() and len(lap.inbound) == 2
    net.sent.clear()
    return net, desk, lap


def silence(net: Net) -> None:
    """From now on nothing arrives: what is under way stays so."""
    net.fate = lambda datagram: []


# --- 1. The states of an IKE SA, and requests -------------------------------------------------

NAMES = {
    "wait": "TEMPORARY_FAILURE",
    "unknown": "CHILD_SA_NOT_FOUND",
    "forgot": "STATE_NOT_FOUND",
    "stranger": "INVALID_IKE_SPI",  # unprotected
    "ends": "INVALID_SYNTAX",  # and the SA is gone
}
"""The tables' words for errors; ``-`` is no answer at all, and nothing changes."""

EXCHANGES = ("INTERMEDIATE", "AUTH", "CHILD", "IKE", "INFORMATIONAL", "FOLLOWUP")
_NUMBERS = dict(zip(EXCHANGES, (43, 35, 36, 36, 37, 44), strict=True))

STATES = """
state           INTERMEDIATE  AUTH      CHILD     IKE       INFORMATIONAL  FOLLOWUP
connecting      -             -         -         -         -              -
authenticating  -             -         -         -         -              -
half-open       -             ends      -         -         -              -
half-open+kem   ends          -         -         -         -              -
asking          -             -         -         -         -              -
established     -             -         SA        SA        empty          forgot
reserved        -             -         -         -         -              -
rekeyed         -             -         wait      wait      empty          forgot
closing         -             -         wait      wait      empty          forgot
closed          stranger      stranger  stranger  stranger  stranger       stranger
"""


def cells(table: str) -> list[tuple[str, str, str]]:
    """(row, column, what stands there); columns are parted by two blanks or more."""
    lines = (line.split("  ") for line in table.strip().split("\n"))
    head, *rows = ([cell.strip() for cell in line if cell.strip()] for line in lines)
    assert all(len(row) == len(head) for row in rows)
    return [
        (row[0], column, what)
        for row in rows
        for column, what in zip(head[1:], row[1:], strict=True)
    ]


def half_open(*additional: str) -> tuple[Net, Side, Side]:
    net, desk, lap = pair(additional=additional)
    net.connect(desk, lap)
    net.play(2.5 * DELAY)
    silence(net)
    return net, desk, lap


def in_state(state: str) -> tuple[Net, Side, Side, IkeSa, IkeSa | None]:
    """A host with an SA in this state, its peer, and their two ends of the SA."""
    match state:
        case "connecting":
            net, desk, lap = pair()
            silence(net)
            net.connect(desk, lap)
            return net, lap, desk, next(iter(desk.ike._ctx)), None
        case "authenticating":
            net, desk, lap = half_open()
            return net, lap, desk, next(iter(desk.ike._ctx)), next(iter(lap.ike._ctx))
        case "half-open" | "half-open+kem":
            net, desk, lap = half_open(*(("mlkem768",) if "kem" in state else ()))
            return net, desk, lap, next(iter(lap.ike._ctx)), next(iter(desk.ike._ctx))
        case "asking":
            net, desk, lap = pair()
            lap.answer_asks = False
            net.connect(desk, lap)
            net.play(4 * DELAY)
            return net, desk, lap, next(iter(lap.ike._ctx)), next(iter(desk.ike._ctx))
    net, desk, lap = up()
    ours, theirs = sa_of(lap, desk), sa_of(desk, lap)
    match state:
        case "reserved":
            silence(net)
            theirs.rekey_at = net.now
            net.run(desk, desk.ike.advance(net.now))
            assert theirs.reserved is not None
            return net, lap, desk, theirs.reserved, None
        case "rekeyed":
            net.fate = lambda datagram: [] if datagram.kind == "37q" else [DELAY]
            theirs.rekey_at = net.now
            net.run(desk, desk.ike.advance(net.now))
            net.play(4 * DELAY)
        case "closing":
            silence(net)
            net.run(lap, lap.ike.close(desk.name, net.now))
        case "closed":
            ours.drop("for this test", net.now)
    return net, desk, lap, ours, theirs


def sensible(exchange: str, sa: IkeSa | None, now: float) -> Contents:
    """What a peer would ask in this exchange, as far as its own state lets it."""
    standing = sa is not None and sa.is_established
    if exchange == "CHILD":
        made = CreateChild(traffic=Traffic(6)).request(sa, now) if sa and standing else None
        return made or Contents()
    if exchange == "IKE" and sa is not None and sa.keys is not None and sa.group:
        was, sa._state = sa._state, SaState.ESTABLISHED
        sa.series, sa.theirs = None, None
        made = RekeyIke().request(sa, now)
        sa._state = was
        return made or Contents()
    if exchange == "FOLLOWUP":
        return Contents(notifies=[Notify(NotifyType.ADDITIONAL_KEY_EXCHANGE, bytes(16))])
    return Contents()


def sealed_request(exchange: str, ours: IkeSa, theirs: IkeSa | None, now: float) -> bytes:
    number = Exchange(_NUMBERS[exchange])
    spis = (ours.spi_i, ours.spi_r if any(ours.spi_r) else b"somebody")
    header = Header(*spis, number, ours.window.expected, False, not ours.initiator)
    if theirs is None or theirs._seal is None:
        return plain_message(header, [])[:16] + b"\x2e" + plain_message(header, [])[17:]
    contents = sensible(exchange, theirs, now)
    return theirs._seal.seal(header, contents.encode())


def read_answer(theirs: IkeSa | None, data: bytes) -> str:
    """SA, empty, Delete, or the name of the error."""
    if data[16] == 41:
        answer = decode_contents(decode_chain(data[16], data[28:]))
    else:
        assert theirs is not None
        answer = decode_contents(theirs.open(data).payloads())
    error = answer.error()
    if error is not None:
        return error.name
    return "SA" if answer.sa else "Delete" if answer.deletes else "empty"


@pytest.mark.parametrize(("state", "exchange", "what"), cells(STATES))
def test_every_state_and_every_request(state: str, exchange: str, what: str) -> None:
    net, peer, side, ours, theirs = in_state(state)
    assert ours.state.value == state.partition("+")[0]
    data = sealed_request(exchange, ours, theirs, net.now)
    before = (ours.state, ours.window.expected, len(ours.children), len(side.ike._ctx))
    sent = [c for c in side.ike.receive(data, peer.address, net.now) if isinstance(c, SendIke)]
    answers = [one.data for one in sent if one.data[19] & 0x20]
    after = (ours.state, ours.window.expected, len(ours.children), len(side.ike._ctx))
    if what == "-":
        assert not sent
        assert after == before
        return
    assert [read_answer(theirs, one) for one in answers] == [NAMES.get(what, what)]
    if what == "stranger":
        assert after == before
    elif what == "ends":
        assert ours.state is SaState.CLOSED
    else:
        assert ours.window.expected == before[1] + 1


def test_the_table_names_every_state() -> None:
    named = {row.partition("+")[0] for row, _, _ in cells(STATES)}
    assert named == {state.value for state in SaState}
    assert {column for _, column, _ in cells(STATES)} == set(EXCHANGES)


# --- 2. Collisions (§2.25) --------------------------------------------------------------------

# A child that we do not know while we wait to hear of one may be that one: TEMPORARY_FAILURE there
# and not CHILD_SA_NOT_FOUND, on which the peer would close what we are about to use.
COLLISIONS = """
we are           life?  rekey C  rekey D  rekey ?  one more  close C  close ?  rekey IKE  close IKE
idle             empty  SA       SA       unknown  SA        Delete   empty    SA         empty
asking for life  empty  SA       SA       unknown  SA        Delete   empty    SA         empty
creating         empty  SA       SA       wait     SA        Delete   empty    wait       empty
rekeying C       empty  SA       SA       wait     SA        Delete   empty    wait       empty
closing C        empty  wait     SA       unknown  SA        empty    empty    wait       empty
rekeying IKE     empty  wait     wait     wait     wait      Delete   empty    SA         empty
closing IKE      empty  wait     wait     wait     wait      empty    empty    wait       empty
"""


def begin(net: Net, lap: Side, desk: Side, what: str) -> None:
    """Lap begins something, and nobody hears it."""
    silence(net)
    sa, name = sa_of(lap, desk), desk.name
    match what:
        case "asking for life":
            net.run(lap, lap.ike.probe(name, net.now))
        case "creating":
            net.run(lap, lap.ike.add(name, ChildPolicy(Traffic(132)), net.now))
        case "rekeying C":
            net.run(lap, lap.ike.rekey(name, net.now))
        case "closing C":
            delete_child(sa, next(iter(sa.children.values())), net.now)
            net.run(lap, lap.ike.advance(net.now))
        case "rekeying IKE":
            sa.rekey_at = net.now
            net.run(lap, lap.ike.advance(net.now))
        case "closing IKE":
            net.run(lap, lap.ike.close(name, net.now))
    kinds = {"asking for life": Liveness, "creating": CreateChild, "rekeying IKE": RekeyIke}
    assert (what == "idle") is (sa.task is None)
    assert isinstance(sa.task, kinds.get(what, object))


def asked(sa: IkeSa, what: str, now: float) -> tuple[Exchange, Contents]:
    """What desk asks, about its end ``sa``."""
    first, second = sa.children.values()
    unknown = b"\x11\x22\x33\x44"
    if what in ("life?", "close IKE", "close C", "close ?"):
        spis = {"close C": first.sa.spi_in.to_bytes(4, "big"), "close ?": unknown}
        closes = {
            "life?": [],
            "close IKE": [Delete(1)],
        }.get(what, [Delete(3, (spis.get(what, b""),))])
        return Exchange.INFORMATIONAL, Contents(deletes=closes)
    task = {
        "rekey C": lambda: CreateChild(first),
        "rekey D": lambda: CreateChild(second),
        "rekey ?": lambda: CreateChild(first),
        "one more": lambda: CreateChild(traffic=Traffic(6)),
        "rekey IKE": RekeyIke,
    }[what]()
    contents = task.request(sa, now)
    assert contents is not None
    if what == "rekey ?":
        contents.notifies[0] = Notify(NotifyType.REKEY_SA, protocol=3, spi=unknown)
    return Exchange.CREATE_CHILD_SA, contents


@pytest.mark.parametrize(("ours", "theirs", "what"), cells(COLLISIONS))
def test_what_we_do_and_what_the_peer_asks_meanwhile(ours: str, theirs: str, what: str) -> None:
    net, desk, lap = up()
    begin(net, lap, desk, ours)
    exchange, contents = asked(sa_of(desk, lap), theirs, net.now)
    answer = ask(net, desk, lap, contents.encode(), exchange)
    error = answer.error()
    told = error.name if error else "SA" if answer.sa else "Delete" if answer.deletes else "empty"
    assert told == NAMES.get(what, what)
    if error is not None and what == "unknown":
        assert (error.protocol, error.spi) == (3, b"\x11\x22\x33\x44")
    if theirs == "close IKE":
        assert not lap.ike._ctx and not lap.inbound


# --- 3. Answers that nobody waits for ---------------------------------------------------------

ANSWERED: dict[str, Callable[[IkeSa], int]] = {
    "of the last request": lambda sa: sa.window.next_id - 1,
    "of the next one": lambda sa: sa.window.next_id,
    "of one long ago": lambda sa: 0,
}


@pytest.mark.parametrize("number", [34, 35, 36, 37, 43, 44])
@pytest.mark.parametrize("which", ANSWERED)
@pytest.mark.parametrize("state", ["established", "closing", "rekeyed", "asking"])
def test_an_answer_that_nobody_waits_for_changes_nothing(
    state: str, which: str, number: int
) -> None:
    net, peer, side, ours, theirs = in_state(state)
    assert theirs is not None and theirs._seal is not None
    waits = ours.window.outstanding
    message_id = max(0, ANSWERED[which](ours))
    if waits is not None and (message_id, number) == (waits.message_id, Exchange.INFORMATIONAL):
        return  # that one is waited for
    header = Header(ours.spi_i, ours.spi_r, Exchange(number), message_id, True, not ours.initiator)
    data = theirs._seal.seal(header, Contents(deletes=[Delete(1)]).encode())
    before = (ours.state, ours.window.outstanding, dict(ours.children), side.ike.views())
    assert not side.ike.receive(data, peer.address, net.now)
    assert before == (ours.state, ours.window.outstanding, ours.children, side.ike.views())
