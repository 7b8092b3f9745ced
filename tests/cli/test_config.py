"""The configuration: what is accepted, and the sentence for everything that is not."""

from __future__ import annotations

from ipaddress import IPv6Address
from pathlib import Path

import pytest

from tunnel.config import ConfigError, HostConfig, default_path, load_host, load_serve
from tunnel.io.identity import settings_of
from tunnel.settings import HomeAgentSettings
from tunnel.spelling import is_domain, is_label, parse_address_endpoint, parse_endpoint, parse_ula

HOST = '[host]\nname = "desk"\n'
ACCOUNT = '[account]\ndomain = "alice.members.example"\n'
PEER = '[[peer]]\nname = "gw.example"\nid = "fd00::1"\nendpoint = "198.51.100.7"\npsk_file = "k"\n'
SERVE = '[serve]\n[[serve.account]]\ndomain = "alice.members.example"\nsecret_file = "a.key"\n'


def host(tmp_path: Path, text: str) -> HostConfig:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return load_host(path)


def complaint(tmp_path: Path, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        host(tmp_path, text)
    return caught.value


def test_a_short_file_gets_the_defaults_of_the_design(tmp_path: Path) -> None:
    config = host(tmp_path, HOST + ACCOUNT)
    assert (config.host.listen, config.host.device, config.host.mtu) == (4500, "at0", 1400)
    assert config.host.fixed_id is None
    assert config.fqdn == "desk.alice.members.example"
    assert config.rendezvous.transport == "tls"
    assert config.resolver.address == ("127.0.0.1", 4553)
    assert config.engine.name == "auto"
    assert config.engine.threads == 1
    assert config.state_dir == Path("/var/lib/autotunnel")
    assert config.account_secret_path() == tmp_path / "account.key"
    assert config.control_socket == Path("/var/lib/autotunnel/control.sock")


def test_the_design_s_own_example_is_accepted(tmp_path: Path) -> None:
    text = """
        [host]
        name = "desk"
        id = "auto"
        listen = 4500
        ike_port = 500
        device = "at0"
        state_dir = "/var/lib/autotunnel"
        [account]
        domain = "alice.members.example"
        secret_file = "account.key"
        [rendezvous]
        server = "203.0.113.10"
        transport = "tls"
        [nat]
        methods = ["pcp", "nat-pmp", "upnp"]
        [[peer]]
        name = "gateway.example"
        id = "fd00::1"
        endpoint = "198.51.100.7:4500"
        auth = "psk"
        psk_file = "gateway.psk"
        suites = ["aes128gcm16"]
        mode = "tunnel"
    """
    config = host(tmp_path, text)
    assert config.rendezvous.endpoint == ("203.0.113.10", 853)
    (peer,) = config.peers
    assert peer.host_id == IPv6Address("fd00::1")
    assert peer.address == ("198.51.100.7", 4500)
    assert peer.suites == ("aes128gcm16",)
    assert config.psk_path(peer) == tmp_path / "gateway.psk"


def test_an_empty_table_makes_a_home_agent(tmp_path: Path) -> None:
    assert host(tmp_path, HOST + ACCOUNT).home_agent is None
    config = host(tmp_path, HOST + ACCOUNT + "[home_agent]\n")
    assert settings_of(config).home_agent == HomeAgentSettings()
    assert settings_of(config).home_agents is None
    text = HOST + 'home_agents = ["gateway"]\n' + ACCOUNT + "[home_agent]\nrate_mbit = 80\n"
    assert settings_of(host(tmp_path, text)).home_agent == HomeAgentSettings(10_000_000, 1024)
    assert settings_of(host(tmp_path, text)).home_agents == ("gateway",)


def test_the_mtu_may_be_what_the_link_takes(tmp_path: Path) -> None:
    assert host(tmp_path, HOST + 'mtu = "auto"\n' + ACCOUNT).host.mtu == "auto"


def test_a_host_with_static_peers_needs_no_account(tmp_path: Path) -> None:
    config = host(tmp_path, '[host]\nname = "desk.example"\n' + PEER)
    assert config.account is None
    assert config.fqdn == "desk.example"
    assert config.peers[0].address == ("198.51.100.7", 4500)


def test_relative_files_stand_beside_the_configuration(tmp_path: Path) -> None:
    config = host(tmp_path, HOST + 'state_dir = "state"\n' + ACCOUNT)
    assert config.state_dir == tmp_path / "state"


@pytest.mark.parametrize(
    ("text", "key", "cause", "fix"),
    [
        ('[host]\nname="d"\nlissten=1\n', "host.lissten", "unknown key", 'did you mean "listen"?'),
        ('[host]\nname="d"\n[acount]\n', "acount", "unknown table", 'did you mean "account"?'),
        ('[host]\nname="d"\nzzz=1\n', "host.zzz", "unknown key", "known here: device, home_agents"),
        (HOST + PEER + "keepalive = 3\n", "peer[0].keepalive", "unknown key", "known here"),
        (HOST + 'listen = "4500"\n', "host.listen", "expected `int`, got a text", "correct"),
        (HOST + "listen = 70000\n", "host.listen", "<= 65535", "correct"),
        (HOST + "mtu = 1279\n", "host.mtu", ">= 1280", "correct"),
        (HOST + 'mtu = "large"\n', "host.mtu", "large", "auto"),
        (HOST + "ike_port = 4500\n", "host.ike_port", "the same as host.listen", "500"),
        (HOST + 'id = "2001:db8::1"\n', "host.id", "not a unique local address", "auto"),
        (HOST + 'id = "desk"\n', "host.id", "not an IPv6 address", "auto"),
        (HOST + 'device = "a/b"\n', "host.device", "not a device name", "at0"),
        ('[host]\nname = "Desk"\n', "host.name", "not a host label", "lower-case"),
        ("[host]\nlisten = 4500\n", "host.name", "it is missing", 'add "name"'),
        (ACCOUNT, "host", "it is missing", "add a table [host]"),
        ("host = 3\n", "host", "expected a table, got `int`", "correct"),
        (HOST, "", "neither an [account] nor a [[peer]]", "autotunnel init"),
        (HOST + '[account]\ndomain = "x."\n', "account.domain", "not a domain name", "alice"),
        (HOST + '[rendezvous]\ntransport = "quic"\n', "rendezvous.transport", "'quic'", '"tls"'),
        (HOST + '[rendezvous]\nserver = "a:b"\n', "rendezvous.server", "not a number", "853"),
        (HOST + '[rendezvous]\npin = "abc"\n', "rendezvous.pin", "SHA-256", "64 digits"),
        (HOST + '[resolver]\nlisten = "192.0.2.1:53"\n', "resolver.listen", "loopback", "127"),
        (HOST + '[resolver]\nlisten = "localhost:53"\n', "resolver.listen", "address", "127"),
        (HOST + '[resolver]\nforward = ["ns"]\n', "resolver.forward", "not an IPv4", "192.0.2.53"),
        (HOST + "[ike]\nchild_lifetime = 0\n", "ike.child_lifetime", "> 0", "correct"),
        (HOST + "[ike]\nliveness = inf\n", "ike.liveness", "<= 3", "correct"),
        (HOST + "[ike]\nliveness = nan\n", "ike.liveness", "> 0", "correct"),
        (HOST + 'state_dir = "/a\\u0000b"\n', "host.state_dir", "a NUL character", "take it out"),
        (HOST + "[serve]\n", "serve", "unknown table", "this is a rendezvous' file"),
        (HOST + "[ike]\nsuites = []\n", "ike.suites", "it is empty", "at least one"),
        (HOST + '[engine]\nname = "fast"\n', "engine.name", "'fast'", '"reference"'),
        (HOST + "[engine]\nthreads = 0\n", "engine.threads", ">= 1", ""),
        (HOST + "[engine]\nthreads = 65\n", "engine.threads", "<= 64", ""),
        (HOST + 'home_agents = ["a.b"]\n', "host.home_agents", "not a host label", "auto"),
        (HOST + "[home_agent]\nhosts = 0\n", "home_agent.hosts", ">= 1", "correct"),
        (HOST + PEER + "[home_agent]\n", "home_agent", "only a host of an account", "join"),
        (
            HOST + PEER.replace("198.51.100.7", "gw.example:4500"),
            "peer[0].endpoint",
            "not an IPv4 or IPv6 address",
            "198.51.100.7:4500",
        ),
        (HOST + PEER + PEER, "peer[1].name", "stands there twice", "remove one"),
        ('[host]\nname = "a.b"\n' + ACCOUNT, "host.name", "more than one label", 'use "a"'),
        ("[host\n", "", "it is not TOML", "correct that line"),
    ],
)
def test_a_mistake_is_told_with_file_key_cause_and_fix(
    tmp_path: Path, text: str, key: str, cause: str, fix: str
) -> None:
    wrong = complaint(tmp_path, text)
    assert wrong.key == key
    assert cause in wrong.cause
    assert fix in wrong.fix
    assert str(wrong).startswith(f"{tmp_path / 'config.toml'}: {key}")


def test_a_file_that_is_not_there_or_not_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no such file; run `autotunnel init`"):
        load_host(tmp_path / "no.toml")
    (tmp_path / "latin.toml").write_bytes(b'x = "\xe9"')
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_host(tmp_path / "latin.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_host(tmp_path)
    with pytest.raises(ConfigError, match="more than 1048576 octets"):
        load_host(Path("/dev/zero"))


MANY = 40_000


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("a" + ".a" * MANY + " = 1", "line 2 has a key of more than 4 parts"),
        ("\n[[ a" + " . a" * MANY + " ]]", "line 3 has a key of more than 4 parts"),
        ('"a\\""' + ".'b'" * MANY + " = 1", "line 2 has a key of more than 4 parts"),
        ("a = {b = 1, a" + ".a" * MANY + " = 1}", "line 2 has a key of more than 4 parts"),
        ("a = " + "[" * MANY, "it is not TOML (nested too deep)"),
        ("a = " + "{a = " * MANY, "it is not TOML (nested too deep)"),
        ("a = " + "1" * MANY, "it is not TOML (a number of thousands of digits)"),
    ],
    ids=["key", "table", "quoted", "inline", "brackets", "braces", "digits"],
)
def test_a_file_that_would_keep_its_reader_busy_is_refused_at_once(
    tmp_path: Path, text: str, cause: str
) -> None:
    """tomllib takes a minute for a key of a hundred thousand parts."""
    wrong = complaint(tmp_path, HOST.split("\n")[0] + "\n" + text)
    assert (wrong.cause.startswith(cause), wrong.fix) == (True, "correct that line")


def test_a_complaint_is_a_sentence_however_long_what_is_wrong(tmp_path: Path) -> None:
    for text in ("k" * MANY + " = 1", HOST.replace("desk", "d" * MANY) + ACCOUNT):
        assert len(str(complaint(tmp_path, text))) < 1500


def test_thousands_of_peers_and_dots_in_texts_are_no_trouble(tmp_path: Path) -> None:
    peers = "".join(
        f'[[peer]]\nname = "p{number}.example"\nid = "fd00::{number + 1:x}"\n'
        'endpoint = "198.51.100.7:4500"\npsk_file = "k"\n'
        for number in range(3000)
    )
    remark = "# a remark, 1.2.3.4.5.6.7.8.9.10 {a.b.c.d.e.f}\n"
    many = 'psk_file = ", a.b.c.d.e.f.g.h.key"\n'
    config = host(tmp_path, HOST + remark + peers + PEER.replace('psk_file = "k"\n', many))
    assert len(config.peers) == 3001


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbf" + (HOST + ACCOUNT).encode())
    assert load_host(path).host.name == "desk"


def test_serve_listens_everywhere_by_default_and_knows_its_accounts(tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(SERVE)
    config = load_serve(path)
    assert config.listen == (("0.0.0.0", 53), ("::", 53))
    assert config.tls_listen == (("0.0.0.0", 853), ("::", 853))
    assert config.account_secret_path(config.accounts[0]) == tmp_path / "a.key"
    assert not config.accounts[0].legacy_md5


@pytest.mark.parametrize(
    ("text", "key", "cause"),
    [
        ("[serve]\n", "serve.account", "there is no account"),
        (HOST, "host", "unknown table"),
        (SERVE.replace("[serve]", '[serve]\nlisten = ["0.0.0.0"]'), "serve.listen", "has no port"),
        (SERVE.replace("[serve]", "[serve]\nlisten = []\ntls_listen = []"), "serve.listen", "no"),
        (SERVE.replace("[serve]", '[serve]\naddress = ["ns"]'), "serve.address", "not an address"),
        (SERVE.replace("secret_file", "secret"), "serve.account[0].secret", "unknown key"),
        (SERVE + SERVE.removeprefix("[serve]\n"), "serve.account", "stands there twice"),
    ],
)
def test_a_mistake_in_serve_is_told(tmp_path: Path, text: str, key: str, cause: str) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_serve(path)
    assert caught.value.key == key
    assert cause in caught.value.cause


def test_endpoints_are_read_as_people_write_them() -> None:
    assert parse_endpoint("203.0.113.10", 853) == ("203.0.113.10", 853)
    assert parse_endpoint("ns.example:53") == ("ns.example", 53)
    assert parse_endpoint("[2001:db8::1]:53") == ("2001:db8::1", 53)
    assert parse_endpoint("2001:db8::1", 853) == ("2001:db8::1", 853)
    assert parse_address_endpoint("[2001:DB8:0::1]:53") == ("2001:db8::1", 53)
    for wrong in ("", ":53", "a b:53", "[::1:53", "[::1]53", "a:0", "a:65536", "a:-1", "a:٣"):
        with pytest.raises(ValueError, match=r"."):
            parse_endpoint(wrong, 53)
    with pytest.raises(ValueError, match="has no port"):
        parse_endpoint("a")


def test_labels_domains_and_host_ids() -> None:
    assert is_label("desk-2") and not is_label("-desk") and not is_label("dësk")
    assert not is_label("a" * 64) and not is_label("")
    assert is_domain("a.example") and not is_domain("example") and not is_domain("a..b")
    assert parse_ula("fd00::1") == IPv6Address("fd00::1")
    for wrong in ("fe80::1", "::1", "fd00::1%at0", "x"):
        with pytest.raises(ValueError, match=r"."):
            parse_ula(wrong)


def test_the_user_s_file_comes_before_the_machine_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    mine = tmp_path / "autotunnel" / "config.toml"
    mine.parent.mkdir()
    mine.touch()
    assert default_path() == mine
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")  # not absolute: ignored, by its specification
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path("x.toml") != mine
