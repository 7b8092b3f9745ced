"""From configuration to what IKE is told: post-quantum keys, modes."""

from __future__ import annotations

from pathlib import Path

import pytest

from keys.ike.types import ChildPolicy, Traffic
from tunnel.config import ConfigError, HostConfig, load_host
from tunnel.io.identity import settings_of, static_peers_of

CONFIG = """
[host]
name = "laptop.example"
[[peer]]
name = "gateway.example"
id = "fd12::2"
endpoint = "192.0.2.2:4500"
psk_file = "gateway.psk"
"""


def load(folder: Path, more: str = "") -> HostConfig:
    for name in ("gateway.psk", "gateway.ppk"):
        (folder / name).touch(mode=0o600)
        (folder / name).write_bytes(name.encode() * 4)
    (folder / "config.toml").write_text(CONFIG + more)
    return load_host(folder / "config.toml")


def test_a_peer_has_a_post_quantum_key_only_if_the_file_names_one(tmp_path: Path) -> None:
    (peer,) = static_peers_of(load(tmp_path))
    assert peer.ppk is None
    more = 'ppk_file = "gateway.ppk"\nppk_id = "spring"\nppk_required = true\n'
    (peer,) = static_peers_of(load(tmp_path, more))
    assert peer.ppk is not None
    assert peer.ppk.identity == b"spring"
    assert peer.ppk.secret == b"gateway.ppk" * 4
    assert peer.ppk.required


@pytest.mark.parametrize("more", ['ppk_file = "gateway.ppk"\n', 'ppk_id = "spring"\n'])
def test_key_and_id_go_together(tmp_path: Path, more: str) -> None:
    with pytest.raises(ConfigError, match="ppk_file and ppk_id go together"):
        load(tmp_path, more)


def test_transport_mode_is_asked_for_in_the_file(tmp_path: Path) -> None:
    (peer,) = static_peers_of(load(tmp_path, 'mode = "transport"\n'))
    assert peer.mode == "transport"


def test_more_children_are_asked_for_in_the_file(tmp_path: Path) -> None:
    children = '{ protocol = 135 }, { protocol = 17, peer_ports = [53, 53], mode = "transport" }'
    (peer,) = static_peers_of(load(tmp_path, f"children = [{children}]\n"))
    assert peer.more == (
        ChildPolicy(Traffic(135)),
        ChildPolicy(Traffic(17, peer_ports=(53, 53)), "transport"),
    )
    for wrong in ("{}", "{ protocol = 0 }", "{ protocol = 6, local_ports = [2, 1] }"):
        with pytest.raises(ConfigError):
            load(tmp_path, f"children = [{wrong}]\n")


@pytest.mark.parametrize(
    ("word", "methods", "required"),
    [("prefer", ("mlkem768",), False), ("require", ("mlkem768",), True), ("off", (), False)],
)
def test_ml_kem_is_preferred_required_or_off(
    tmp_path: Path, word: str, methods: tuple[str, ...], required: bool
) -> None:
    ike = settings_of(load(tmp_path, f'[ike]\npost_quantum = "{word}"\n')).ike
    assert (ike.additional, ike.additional_required) == (methods, required)


def test_ml_kem_is_on_by_default(tmp_path: Path) -> None:
    assert settings_of(load(tmp_path)).ike.additional == ("mlkem768",)


def test_the_file_says_how_many_peers_find_room(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert settings_of(config).peers == 1024
    file = tmp_path / "config.toml"
    file.write_text(file.read_text().replace("[host]", "[host]\nmax_peers = 9000"))
    assert settings_of(load_host(file)).peers == 9000
