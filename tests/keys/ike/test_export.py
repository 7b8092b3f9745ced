"""The keys of live SAs as Wireshark's tables have them; nothing of SAs that are gone."""

from __future__ import annotations

import re

from tests.keys.ike.net import Net, Side, pair


def up(**policy: object) -> tuple[Net, Side, Side]:
    net, desk, lap = pair()
    net.connect(desk, lap, **policy)
    net.play(2)
    assert desk.ike.views()
    return net, desk, lap


def test_both_ends_hand_out_the_same_keys() -> None:
    _, desk, lap = up(suites=("aes128gcm16",))
    ours, theirs = desk.ike.export_keys(lap.name), lap.ike.export_keys(desk.name)
    assert sorted(ours.esp_sa) == sorted(theirs.esp_sa)
    assert ours.ikev2_decryption_table == theirs.ikev2_decryption_table


def test_an_esp_line_names_spi_algorithm_key_and_salt_for_both_outer_families() -> None:
    _, desk, lap = up(suites=("aes256gcm16",), esn=(False,))
    (child,) = desk.inbound.values()
    tables = desk.ike.export_keys(lap.name.upper())
    assert len(tables.esp_sa) == 4
    assert tables.esp_sa[0] == (
        f'"IPv4","*","*","0x{child.spi_in:08x}","AES-GCM with 16 octet ICV [RFC4106]",'
        f'"0x{child.key_in.hex()}","NULL",""'
    )
    assert tables.esp_sa[3].startswith(f'"IPv6","*","*","0x{child.spi_out:08x}",')
    assert not tables.notes


def test_an_ike_line_has_both_spis_and_both_keys_with_their_salts() -> None:
    _, desk, lap = up()
    (line,) = desk.ike.export_keys(lap.name).ikev2_decryption_table
    shape = r"[0-9a-f]{16},[0-9a-f]{16},[0-9a-f]{72},[0-9a-f]{72},"
    assert re.fullmatch(
        shape + r'"AES-GCM-256 with 16 octet ICV \[RFC5282\]",,,"NONE \[RFC4306\]"', line
    )


def test_what_wireshark_cannot_read_is_left_out_and_said() -> None:
    net, desk, lap = pair(encryption=("chacha20poly1305",))
    net.connect(desk, lap, esn=(False,))
    net.play(2)
    tables = desk.ike.export_keys(lap.name)
    assert not tables.ikev2_decryption_table
    assert len(tables.esp_sa) == 4
    (note,) = tables.notes
    assert note == "Wireshark has no chacha20poly1305 for IKEv2: the IKE SA is left out"


def test_extended_sequence_numbers_are_said() -> None:
    _, desk, lap = up(esn=(True,))
    (note,) = desk.ike.export_keys(lap.name).notes
    assert "extended sequence numbers" in note


def test_keys_go_with_their_sa() -> None:
    net, desk, lap = up()
    assert desk.ike.export_keys(lap.name).esp_sa
    net.run(desk, desk.ike.close(lap.name, net.now))
    net.play(20)
    assert desk.ike.export_keys(lap.name) == lap.ike.export_keys(desk.name)
    assert not desk.ike.export_keys(lap.name).ikev2_decryption_table


def test_the_keys_do_not_stand_in_a_log() -> None:
    _, desk, lap = up()
    tables = desk.ike.export_keys(lap.name)
    (child,) = desk.inbound.values()
    assert child.key_in.hex() not in repr(tables)
