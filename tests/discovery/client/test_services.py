"""DNS-SD in the zone (RFC 6763): the client machine against the server machine, in memory."""

from __future__ import annotations

import dataclasses

import dns.name
import dns.rdata
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery import browse, records, services
from discovery.client import ClientSettings
from discovery.exchange import Response
from discovery.services import ServiceError, checked_service
from discovery.store import MemoryStore
from discovery.types import FoundService, Published, RecordsFound, Service, ServicesFound, Withdrawn
from tests.discovery.client.test_client import DESK, DOMAIN, World, of, server

SHELL = Service("_ssh._tcp", "Desk's shell", 22)
PHOTOS = Service("_http._tcp", "Fotos für alle. Wirklich", 8080, ("path=/photos", "u=me"))
TYPES = services.types_name(DOMAIN)


def offering(*offered: Service, withdrawn: tuple[Service, ...] = ()) -> World:
    world = World()
    world.up()
    wanted = dataclasses.replace(DESK, services=offered, withdrawn=withdrawn)
    assert of(Published, world.publish(wanted))
    return world


def found(world: World, kind: str = "") -> ServicesFound:
    (one,) = world.run(world.client.browse(kind, world.now, world.unix))
    assert isinstance(one, ServicesFound)
    return one


# --- Writing --------------------------------------------------------------------------------


def test_rfc6763_4_1_5_6_9_the_records_of_a_service_stand_where_dns_sd_has_them() -> None:
    world = offering(SHELL, PHOTOS)
    shell = services.instance_name(SHELL, DOMAIN)
    photos = services.instance_name(PHOTOS, DOMAIN)
    assert shell.labels[0] == b"Desk's shell"  # §4.3: one label, as the person wrote it
    assert world.texts(services.type_name("_ssh._tcp", DOMAIN)) == {records.PTR: {shell.to_text()}}
    assert world.texts(shell) == {
        records.SRV: {f"0 0 22 desk.{DOMAIN}."},
        records.TXT: {'""'},  # §6.1: one empty string
    }
    assert world.texts(photos)[records.TXT] == {'"path=/photos" "u=me"'}
    kinds = {f"_http._tcp.{DOMAIN}.", f"_ssh._tcp.{DOMAIN}."}
    assert world.texts(TYPES) == {records.PTR: kinds}


def test_rfc6763_11_the_domain_says_that_it_can_be_browsed() -> None:
    world = offering(SHELL)
    for name in services.domain_names(DOMAIN):
        assert world.texts(name) == {records.PTR: {f"{DOMAIN}."}}
    for kind in ("r", "dr"):  # nobody registers by itself: advertising is the owner's word
        assert world.texts(dns.name.from_text(f"{kind}._dns-sd._udp.{DOMAIN}")) == {}


def test_a_host_without_services_writes_nothing_of_dns_sd() -> None:
    world = offering()
    for name in (TYPES, *services.domain_names(DOMAIN)):
        assert world.texts(name) == {}


def test_withdrawn_services_go_and_those_of_others_stay() -> None:
    zone = server(MemoryStore())
    other = World(zone=zone, label="lap")
    other.up()
    theirs = Service("_ssh._tcp", "Lap", 22)
    other.publish(
        dataclasses.replace(
            DESK,
            label="lap",
            host_id=dataclasses.replace(DESK).host_id + 1,
            target="AutoTunnel-" + "-".join(["01"] * 8),
            services=(theirs,),
        )
    )
    world = World(zone=zone)
    world.up()
    world.publish(dataclasses.replace(DESK, services=(SHELL, PHOTOS)))
    (done,) = world.publish(dataclasses.replace(DESK, services=(PHOTOS,), withdrawn=(SHELL,)))
    assert isinstance(done, Published)
    assert done.records is not None
    assert done.records.withdrawn == (SHELL,)
    assert [(one.service, one.label) for one in found(world).services] == [
        (PHOTOS, "desk"),
        (theirs, "lap"),
    ]
    assert world.withdraw() == [Withdrawn()]
    assert found(other).services == (FoundService(theirs, "lap"),)
    assert world.texts(services.instance_name(PHOTOS, DOMAIN)) == {}


def test_withdrawing_spares_another_host_that_took_the_name_since() -> None:
    zone = server(MemoryStore())
    other = World(zone=zone, label="lap")
    other.up()
    target = "AutoTunnel-" + "-".join(["01"] * 8)
    theirs = dataclasses.replace(SHELL, port=2222)
    host_id = DESK.host_id + 1
    other.publish(
        dataclasses.replace(DESK, label="lap", host_id=host_id, target=target, services=(theirs,))
    )
    world = World(zone=zone)
    world.up()
    world.publish(dataclasses.replace(DESK, withdrawn=(SHELL,)))
    srv = world.texts(services.instance_name(SHELL, DOMAIN))[records.SRV]
    assert srv == {f"0 0 2222 lap.{DOMAIN}."}


def test_many_services_fit_in_one_update() -> None:
    many = tuple(
        Service("_x._tcp", f"{number} " + "ü" * 29, 1 + number, ("k=" + "v" * 250,) * 1)
        for number in range(services.MAX_SERVICES)
    )
    assert len(found(offering(*many)).services) == services.MAX_SERVICES


# --- Reading --------------------------------------------------------------------------------


def test_browsing_follows_types_instances_and_their_places() -> None:
    world = offering(SHELL, PHOTOS)
    everything = found(world)
    assert everything == ServicesFound(
        "", (FoundService(PHOTOS, "desk"), FoundService(SHELL, "desk"))
    )
    assert found(world, "_ssh._tcp").services == (FoundService(SHELL, "desk"),)
    assert found(world, "_ipp._tcp").services == ()


def test_one_question_is_answered_with_what_stands_there() -> None:
    world = offering(SHELL)
    name = services.type_name("_ssh._tcp", DOMAIN)
    (there,) = world.run(world.client.ask(name, records.PTR, world.now, world.unix))
    assert isinstance(there, RecordsFound)
    assert [rdata.to_text() for rdata in there.answer] == [
        services.instance_name(SHELL, DOMAIN).to_text()
    ]
    nowhere = services.type_name("_ipp._tcp", DOMAIN)
    (absent,) = world.run(world.client.ask(nowhere, records.PTR, world.now, world.unix))
    assert absent == RecordsFound(nowhere, records.PTR, (), exists=False)


def test_browsing_without_a_rendezvous_fails_with_a_reason() -> None:
    world = World()
    commands = world.client.browse("", world.now, world.unix)
    commands += world.client.ask(TYPES, records.PTR, world.now, world.unix)
    told = world.run(commands) + world.advance(30)
    (services_found,) = of(ServicesFound, told)
    (records_found,) = of(RecordsFound, told)
    assert "cannot be reached" in services_found.reason
    assert "cannot be reached" in records_found.reason


def test_searches_are_bounded() -> None:
    world = World(settings=ClientSettings(max_lookups=1))
    world.client.browse("", world.now, world.unix)
    (refused,) = world.client.browse("_ssh._tcp", world.now, world.unix)
    (asked,) = world.client.ask(TYPES, records.PTR, world.now, world.unix)
    assert refused.reason == asked.reason == "too many lookups are under way"
    assert world.client.browse("", world.now, world.unix) == []  # joins the one under way


def _data(kind: str, *texts: str) -> list[dns.rdata.Rdata]:
    return [dns.rdata.from_text("IN", kind, text) for text in texts]


def test_what_is_no_service_is_left_out() -> None:
    kinds = _data("PTR", f"_ssh._tcp.{DOMAIN}.", "_ssh._tcp.evil.example.", f"ssh.{DOMAIN}.", ".")
    kinds += _data("PTR", f"_autotunnel._udp.{DOMAIN}.", f"_a--b._tcp.{DOMAIN}.")
    assert services.types_in(kinds, DOMAIN) == ("_ssh._tcp",)
    above = f"_ssh._tcp.{DOMAIN}."
    names = _data("PTR", rf"a\032b.{above}", above, rf"\007.{above}", "x._ssh._tcp.evil.example.")
    names += _data("PTR", rf"\255.{above}", f"x.y.{above}")
    assert [n.labels[0] for n in services.instances_in(names, "_ssh._tcp", DOMAIN)] == [b"a b"]


def test_rfc2782_the_place_of_a_service_is_a_host_of_the_account() -> None:
    place = services.place_in(
        _data("SRV", f"9 0 22 far.{DOMAIN}.", f"1 0 22 Desk.{DOMAIN}.", f"1 5 23 b.{DOMAIN}."),
        DOMAIN,
    )
    assert place == ("b", 23)  # least priority, then most weight
    bad = ("0 0 22 .", f"0 0 0 desk.{DOMAIN}.", "0 0 22 desk.evil.example.", f"0 0 22 {DOMAIN}.")
    assert services.place_in(_data("SRV", *bad), DOMAIN) is None
    assert services.place_in(_data("SRV", f"0 0 22 _x.{DOMAIN}."), DOMAIN) is None


def test_rfc6763_6_4_the_first_of_each_key_counts() -> None:
    texts = services.texts_in(_data("TXT", '"a=1" "A=2" "=x" "b" "" "c=\\255"'))
    assert texts == ("a=1", "b", "c=\N{REPLACEMENT CHARACTER}")
    long = " ".join(f'"k{number}={"v" * 250}"' for number in range(6))
    assert services.texts_in(_data("TXT", long)) == ()  # §6.2: 1300 octets


# --- What a person may say ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["_ssh._tcp", "_SSH._TCP", "_a-b2._udp", "_x._tcp"])
def test_rfc6763_7_service_types(kind: str) -> None:
    assert services.check_type(kind) == kind.lower()


@pytest.mark.parametrize(
    "kind",
    [
        *("ssh", "_ssh", "_ssh.tcp", "_ssh._sctp", "_-a._tcp", "_a-._tcp", "_a--b._tcp"),
        *("_12._tcp", "_" + "x" * 16 + "._tcp", "_ssh._tcp.example", "_a b._tcp", "._tcp"),
        *("_._tcp", "_autotunnel._udp", "_dns-sd._udp", "_dns-update-tls._tcp"),
    ],
)
def test_what_is_no_service_type_is_refused(kind: str) -> None:
    with pytest.raises(ServiceError):
        services.check_type(kind)


def test_rfc6763_4_1_3_names_are_nfc_and_one_label() -> None:
    assert services.check_instance("Cafe\N{COMBINING ACUTE ACCENT}") == "Café"
    assert services.check_instance('dots. and \\ "quotes"') == 'dots. and \\ "quotes"'
    for bad in ("", "a\nb", "\x7f", "é" * 32, "\ud800"):
        with pytest.raises(ServiceError):
            services.check_instance(bad)


@pytest.mark.parametrize(
    "texts",
    [
        *(["=x"], [""], ["a=1", "A=2"], ["é=1"], ["k=" + "v" * 254], ["k\n=1"], ["a=\ud800"]),
        [f"k{n}=" + "v" * 250 for n in range(6)],
    ],
)
def test_texts_that_nobody_could_read_are_refused(texts: list[str]) -> None:
    with pytest.raises(ServiceError):
        services.check_texts(texts)


@pytest.mark.parametrize("port", [0, 65536, True, "22", None])
def test_a_port_is_a_number(port: object) -> None:
    with pytest.raises(ServiceError):
        checked_service("_ssh._tcp", port, "x")


@given(st.text(min_size=1, max_size=63), st.integers(1, 65535))
def test_what_can_be_said_can_be_read(name: str, port: int) -> None:
    try:
        service = checked_service("_ssh._tcp", port, name)
    except ServiceError:
        return
    host = records.host_name("desk", DOMAIN)
    data = list(services.rdatas(service, host, DOMAIN))
    (instance,) = services.instances_in([data[0][1]], service.type, DOMAIN)
    assert services.instance_text(instance) == service.name
    assert services.place_in([data[1][1]], DOMAIN) == ("desk", port)


def test_a_question_is_about_services_or_it_is_not() -> None:
    def about(text: str) -> bool:
        return services.is_service_question(dns.name.from_text(text, None).labels)

    for text in ("_ssh._tcp", r"a\.b\032c._ssh._tcp", "_sub1._sub._http._tcp", "_IPP._TCP"):
        assert about(text)
    assert about("_services._dns-sd._udp")
    for text in ("_ssh", "desk", "_autotunnel._udp", "_autotunnel._udp.desk", "_dns-llq-tls._udp"):
        assert not about(text)
    for text in ("x._dns-sd._udp", "a.b._ssh._tcp", "a.b.c._ssh._tcp", "_ssh._tcp.desk", "_x._y"):
        assert not about(text)


def test_types_and_instances_that_are_followed_are_bounded() -> None:
    job = browse.Browse("_ssh._tcp", DOMAIN)
    (question,) = job.first()
    above = services.type_name("_ssh._tcp", DOMAIN)
    targets = [f"i{number}.{above}" for number in range(300)]
    many = [(*question, target) for target in _data("PTR", *targets)]
    asked = job.take(question, Response(1, 0, 0, False, question, tuple(many)))
    assert isinstance(asked, list)
    assert len(asked) == 2 * browse.MAX_INSTANCES
    for one in asked:
        outcome = job.take(one, Response(1, 0, 0, False, one, ()))
    assert outcome == ServicesFound("_ssh._tcp", ())  # none of them has a place
    refused = browse.Browse("", DOMAIN)
    (question,) = refused.first()
    answer = refused.take(question, Response(1, 0, 5, False, question, ()))
    assert isinstance(answer, ServicesFound)
    assert "REFUSED" in answer.reason
