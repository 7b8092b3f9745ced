"""Hosts that prove themselves with certificates: joined, renewed and revoked through the zone."""

from __future__ import annotations

from cryptography import x509

from discovery import types as zone_types
from discovery.client import ZoneClient
from discovery.texts import Change
from discovery.types import TsigKey
from keys import ca, signing
from keys.ca import Authority
from keys.ike.certificates import Credential
from keys.issuer import Issuer, Ledger
from keys.signing import Granted
from tests.sim.conftest import Make
from tests.sim.scenes import DESK, LAPTOP, delivers, delivers_after_reach
from tests.sim.world import DOMAIN, Config, SimHost, World
from tunnel.credentials import Credentials
from tunnel.settings import NodeSettings
from tunnel.signing import INBOX, ISSUED, REVOKED, answer_name

LIFETIME = 300  # seconds: a certificate's, so that a run sees several
SETTINGS = NodeSettings(renewal_poll=5.0, recheck=20.0)


def make_issuer(world: World, lifetime: int = LIFETIME) -> Issuer:
    authority = Authority.new(DOMAIN, world.unix, world.random.randbytes)
    return Issuer(authority, Ledger(), world.random.randbytes, lifetime)


def enrolled(world: World, issuer: Issuer, label: str) -> Credentials:
    """What the files of a host hold after ``init`` or ``join``."""
    key = ca.new_key(world.random.randbytes)
    wanted = ca.read_request(ca.request(key, f"{label}.{DOMAIN}"))
    own = Credential(key, (issuer.enroll(wanted, world.unix),))
    return Credentials(DOMAIN, own, issuer.authority.certificate)


def host(
    world: World, issuer: Issuer, label: str, endpoint: tuple[str, int], *, issues: bool = False
) -> SimHost:
    config = Config(label, endpoint, settings=SETTINGS)
    config.credentials = enrolled(world, issuer, label)
    config.issuer = issuer if issues else None
    return SimHost(world, config).start()


def two(world: World, issuer: Issuer) -> tuple[SimHost, SimHost]:
    desk = host(world, issuer, "desk", DESK, issues=True)
    laptop = host(world, issuer, "laptop", LAPTOP)
    assert world.run(10, lambda: {"desk", "laptop"} <= world.labels_in_zone())
    assert delivers_after_reach(world, laptop, desk, 1)
    return desk, laptop


class Person:
    """Somebody with the account's key: asks and writes in the zone, outside of any host."""

    def __init__(self, world: World) -> None:
        self.world = world
        key = TsigKey(world.account.tsig_name, world.account.tsig_secret)
        self.client = ZoneClient(domain=DOMAIN, label="x", key=key, random=world.random.randbytes)
        self.client.transport_up(world.now, world.unix)

    def do(self, todo: list[zone_types.ClientCommand]) -> list[zone_types.ClientCommand]:
        world, said = self.world, []
        while todo:
            command = todo.pop(0)
            if isinstance(command, zone_types.SendZone):
                for answer in world.zone.handle(command.wire, ("192.0.2.9", 1), "tls", world.unix):
                    todo += self.client.receive(answer, world.now, world.unix)
            else:
                said.append(command)
        return said

    def read(self, prefix: str) -> tuple[bytes, ...]:
        said = self.do(self.client.read_texts(prefix, self.world.now, self.world.unix))
        return next(one.messages for one in said if isinstance(one, zone_types.TextsFound))

    def write(self, *changes: Change) -> None:
        self.do(self.client.change_texts("t", changes, self.world.now, self.world.unix))


def test_two_hosts_of_an_account_speak_by_certificate(world_of: Make) -> None:
    world = world_of(31)
    desk, laptop = two(world, make_issuer(world))
    assert desk.peer("laptop")["auth"] == laptop.peer("desk")["auth"] == "cert"
    status = laptop.node.status(world.now)["certificate"]
    assert status["issuer"] is False
    assert status["expires_unix"] > world.unix


def test_a_host_renews_by_itself_over_and_over(world_of: Make) -> None:
    """At two thirds of the lifetime, without a packet lost; the issuer renews its own, too."""
    world = world_of(32)
    desk, laptop = two(world, make_issuer(world))
    first = laptop.kept.get("certificate")
    assert first is None, "it is young"
    for number in range(2, 12):
        assert delivers(world, laptop, desk, number, within=30)
        world.run(100)
    assert laptop.node.status(world.now)["certificate"]["problem"] is None
    for one in (laptop, desk):
        kept = x509.load_pem_x509_certificate(one.kept["certificate"])
        assert ca.expires(kept) > world.unix
    assert Person(world).read(INBOX) == (), "nothing is left behind"
    assert delivers(world, laptop, desk, 99, within=30)


def test_without_an_issuer_that_is_up_renewal_waits_and_says_so(world_of: Make) -> None:
    world = world_of(33)
    issuer = make_issuer(world)
    desk, laptop = two(world, issuer)
    desk.kill()
    world.run(LIFETIME * 0.8)
    assert "certificate" not in laptop.kept
    assert len(Person(world).read(INBOX)) == 1
    SimHost(world, desk.config).start()
    assert world.run(60, lambda: "certificate" in laptop.kept)


def test_a_host_joins_through_the_zone(world_of: Make) -> None:
    """The request waits in the zone; the issuer answers within seconds of an invitation."""
    world = world_of(34)
    issuer = make_issuer(world)
    desk = host(world, issuer, "desk", DESK, issues=True)
    assert world.run(10, lambda: "desk" in world.labels_in_zone())
    world.run(40)
    until = world.unix + 600
    desk.tell(desk.node.invited, until)
    key, join_key = ca.new_key(world.random.randbytes), issuer.authority.join_key(b"id", until)
    request = signing.seal_join(
        join_key, b"id", until, ca.request(key, f"laptop.{DOMAIN}"), world.random.randbytes
    )
    person = Person(world)
    person.write(Change(INBOX, request, add=True))
    asked = signing.request_id(request)
    assert world.run(3, lambda: bool(person.read(answer_name(asked))))
    (octets,) = person.read(answer_name(asked))
    answer = signing.read_answer(octets, join_key, asked)
    assert isinstance(answer, Granted)
    made = x509.load_der_x509_certificate(answer.certificate)
    authority = x509.load_der_x509_certificate(answer.authority)
    config = Config("laptop", LAPTOP, settings=SETTINGS)
    config.credentials = Credentials(DOMAIN, Credential(key, (made,)), authority)
    laptop = SimHost(world, config).start()
    assert delivers_after_reach(world, laptop, desk, 1)
    assert b"laptop" in desk.kept["ledger"]


def test_what_lies_in_the_inbox_proves_itself_or_is_removed(world_of: Make) -> None:
    world = world_of(35)
    issuer = make_issuer(world)
    desk = host(world, issuer, "desk", DESK, issues=True)
    person = Person(world)
    forged = signing.seal_join(bytes(32), b"id", world.unix + 600, b"x", world.random.randbytes)
    person.write(Change(INBOX, b"noise", add=True), Change(INBOX, forged, add=True))
    assert world.run(60, lambda: person.read(INBOX) == ())
    assert person.read(answer_name(signing.request_id(forged))) == ()
    assert [one.name for one in issuer.ledger.issued] == [f"desk.{DOMAIN}"]
    assert any("is not answered" in text for _, _, text in desk.logs)


def test_a_revoked_host_is_let_go_and_stays_out(world_of: Make) -> None:
    world = world_of(36)
    issuer = make_issuer(world, lifetime=86400)
    desk, laptop = two(world, issuer)
    tablet = host(world, issuer, "tablet", ("203.0.113.9", 4500))
    assert delivers_after_reach(world, tablet, laptop, 2)
    other = Ledger.from_json(issuer.ledger.to_json())
    revoker = Issuer(issuer.authority, other, world.random.randbytes)
    assert revoker.revoke(f"tablet.{DOMAIN}", world.unix)
    desk.tell(desk.node.ledger_changed, other)
    assert world.run(90, lambda: laptop.peer("tablet").get("state") != "up")
    assert any("was revoked" in text for _, _, text in laptop.logs)
    assert not delivers(world, tablet, laptop, 3, within=40)
    assert delivers(world, laptop, desk, 4, within=30), "all others go on"
    assert laptop.kept["revocations"] == Person(world).read(REVOKED)[0]


def test_an_older_or_forged_revocation_list_changes_nothing(world_of: Make) -> None:
    world = world_of(37)
    issuer = make_issuer(world, lifetime=86400)
    desk, laptop = two(world, issuer)
    old = issuer.authority.revocations({}, 1, world.unix)
    newer = issuer.authority.revocations({12345: world.unix}, 2, world.unix)
    forged = Authority.new(DOMAIN, world.unix, world.random.randbytes).revocations(
        {1: world.unix}, 9, world.unix
    )
    desk.kill()
    person = Person(world)
    person.write(Change(REVOKED, newer, add=True))
    assert world.run(90, lambda: laptop.kept.get("revocations") == newer)
    person.write(Change(REVOKED), Change(REVOKED, old, add=True), Change(REVOKED, forged, add=True))
    world.run(130)
    assert laptop.kept["revocations"] == newer
    assert laptop.node.status(world.now)["certificate"]["revoked"] == 1
    assert any("not signed by the account's CA" in text for _, _, text in laptop.logs)


def test_a_host_with_the_account_secret_alone_gets_nowhere(world_of: Make) -> None:
    """The secret lets it write into the zone; peers want a certificate of the CA."""
    world = world_of(38)
    issuer = make_issuer(world, lifetime=86400)
    desk, _ = two(world, issuer)
    intruder = SimHost(world, Config("phone", ("203.0.113.66", 4500))).start()
    assert not delivers(world, intruder, desk, 5, within=40)
    forger = make_issuer(world)
    forged = host(world, forger, "tv", ("203.0.113.67", 4500))
    assert not delivers(world, forged, desk, 6, within=40)
    assert any("was not issued by" in text for _, _, text in desk.logs)


# --- Several issuers --------------------------------------------------------------------------


def second_issuer(world: World, first: Issuer) -> Issuer:
    """On another host: the same CA key, and a ledger that begins empty."""
    return Issuer(first.authority, Ledger(), world.random.randbytes, first._lifetime)


def two_issuers(world: World) -> tuple[SimHost, SimHost, Issuer, Issuer]:
    one = make_issuer(world, lifetime=86400)
    two = second_issuer(world, one)
    desk = host(world, one, "desk", DESK, issues=True)
    laptop = host(world, two, "laptop", LAPTOP, issues=True)
    names = {f"desk.{DOMAIN}", f"laptop.{DOMAIN}"}
    assert world.run(120, lambda: known(one) == known(two) == names)
    return desk, laptop, one, two


def known(issuer: Issuer) -> set[str]:
    return {entry.name for entry in issuer.ledger.issued}


def join(world: World, issuer: Issuer, label: str, invitation: bytes) -> Granted | signing.Refused:
    """A host joins with an invitation; whichever issuer looks first answers."""
    until, person = world.unix + 6000, Person(world)
    join_key = issuer.authority.join_key(invitation, until)
    wanted = ca.request(ca.new_key(world.random.randbytes), f"{label}.{DOMAIN}")
    request = signing.seal_join(join_key, invitation, until, wanted, world.random.randbytes)
    person.write(Change(INBOX, request, add=True))
    asked = signing.request_id(request)
    assert world.run(60, lambda: bool(person.read(answer_name(asked))))
    return signing.read_answer(person.read(answer_name(asked))[0], join_key, asked)


def test_issuers_share_what_they_have_issued(world_of: Make) -> None:
    world = world_of(38)
    desk, laptop, one, two = two_issuers(world)
    assert isinstance(join(world, one, "tablet", b"first"), Granted)
    names = {f"{label}.{DOMAIN}" for label in ("desk", "laptop", "tablet")}
    assert world.run(60, lambda: known(one) == known(two) == names)
    desk.kill()  # the other one knows that the name is taken, and the invitation used
    refused = join(world, two, "tablet", b"second")
    assert isinstance(refused, signing.Refused)
    assert "another host already" in refused.reason
    refused = join(world, two, "phone", b"first")
    assert isinstance(refused, signing.Refused)
    assert "used already" in refused.reason
    assert b"tablet" in laptop.kept["ledger"]


def test_issuers_that_revoke_at_once_lose_nothing(world_of: Make) -> None:
    """Each knows of one; both lists have the same number; in the end there is one list of both."""
    world = world_of(39)
    desk, laptop, one, two = two_issuers(world)
    phone = host(world, one, "phone", ("203.0.113.8", 4500))
    tablet = host(world, two, "tablet", ("203.0.113.9", 4500))
    for lost, issuer, where in (("phone", one, desk), ("tablet", two, laptop)):
        ledger = Ledger.from_json(issuer.ledger.to_json())
        revoker = Issuer(issuer.authority, ledger, world.random.randbytes)
        assert revoker.revoke(f"{lost}.{DOMAIN}", world.unix)
        where.tell(where.node.ledger_changed, ledger)
    assert one.ledger.number == two.ledger.number == 1

    def revoked() -> list[int]:
        hosts = (desk, laptop, phone, tablet)
        return [host.node.status(world.now)["certificate"]["revoked"] for host in hosts]

    assert world.run(400, lambda: revoked() == [2, 2, 2, 2])
    (octets,) = Person(world).read(REVOKED)
    found = ca.read_revocations(octets, one.authority.certificate)
    assert (len(found.serials), found.number) == (2, 2)
    world.run(200)
    assert Person(world).read(REVOKED) == (octets,), "it has come to rest"
    # An issuer that forgets what has expired keeps what others have revoked.
    two.ledger.forget(world.unix)
    assert len(two.ledger.revoked) == 2


def test_any_issuer_revokes_what_another_has_issued(world_of: Make) -> None:
    world = world_of(40)
    _, laptop, one, two = two_issuers(world)
    tablet = host(world, one, "tablet", ("203.0.113.9", 4500))
    assert world.run(90, lambda: f"tablet.{DOMAIN}" in known(two))
    ledger = Ledger.from_json(two.ledger.to_json())
    assert Issuer(two.authority, ledger, world.random.randbytes).revoke(
        f"tablet.{DOMAIN}", world.unix
    )
    laptop.tell(laptop.node.ledger_changed, ledger)
    assert world.run(200, lambda: one.ledger.revoked == two.ledger.revoked != {})
    assert world.run(90, lambda: tablet.node.status(world.now)["certificate"]["revoked"] == 1)


def test_vouchers_prove_themselves_and_go_when_they_have_expired(world_of: Make) -> None:
    world = world_of(41)
    _, _, one, two = two_issuers(world)
    person = Person(world)
    (mine, *_) = person.read(ISSUED)
    entry = one.read_voucher(mine)
    old = one.voucher(type(entry)("abc", f"old.{DOMAIN}", "00", world.unix - 1))
    forged = mine[:-4] + bytes([mine[-4] ^ 1]) + mine[-3:]
    wrong = one.authority.key.sign(b"autotunnel/1 issued\0[]") + b"[]"
    noise = (old, forged, wrong, b"noise")
    person.write(*(Change(ISSUED, octets, add=True) for octets in noise))
    assert world.run(90, lambda: not set(noise) & set(person.read(ISSUED)))
    assert len(person.read(ISSUED)) == 2
    assert known(one) == known(two) == {f"desk.{DOMAIN}", f"laptop.{DOMAIN}"}
