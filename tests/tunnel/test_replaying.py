"""A recording in its file is played again from the files of then and the secrets of now."""

from __future__ import annotations

import shutil
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from discovery.types import HostRecords
from keys import store
from keys.issuer import Ledger
from tests.cli.support import DOMAIN, Person
from tunnel.config import HostConfig, load_host
from tunnel.io import identity as who
from tunnel.io.making import IN_STATE_DIR, Ingredients, Recording, node_of
from tunnel.io.papers import LEDGER, PROOFS, RECORDS
from tunnel.io.recording import RecordingError
from tunnel.io.replaying import Replay
from tunnel.io.services import FILE as SERVICES
from tunnel.io.zone import client_of
from tunnel.mobility.proofs import SCHEMA
from tunnel.remembered import to_json

NOW, UNIX = 1000.0, 1_800_000_000
LAPTOP = HostRecords(
    "laptop",
    IPv6Address("fd12:3456:789a::2"),
    "AutoTunnel-00-00-00-00-00-00-00-02",
    (("203.0.113.7", 4500),),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``init`` makes: an account with certificates, of which this host is an issuer."""
    folder = tmp_path_factory.mktemp("home")
    Person(folder).init()
    return folder


@pytest.fixture
def config(home: Path, tmp_path: Path) -> HostConfig:
    """A copy of it, with what an earlier run of the host has left."""
    shutil.copytree(home, tmp_path / "home")
    path = tmp_path / "home" / "config.toml"
    path.write_text(path.read_text().replace(str(home), str(tmp_path / "home")))
    settings = load_host(path)
    settings.state_dir.mkdir(exist_ok=True)
    left = {
        RECORDS: to_json(DOMAIN, [LAPTOP]).decode(),
        PROOFS: f'{{"schema": "{SCHEMA}", "proofs": {{}}}}',
    }
    for name, text in left.items():
        (settings.state_dir / name).write_text(text)
    return settings


def record(config: HostConfig, file: Path) -> None:
    """A host that comes up, hears of itself, and looks for another one."""
    recording = Recording(file, config)
    recorder, chance = recording.recorder, recording.chance
    what = Ingredients.read(config, chance.random)
    host_id = who.host_id_of(config)
    recording.begin(host_id, 1400)
    client = client_of(config, what.account, chance.random)
    node = node_of(what, host_id, client, 1400, chance)
    recorder.made()
    now = NOW
    for method, arguments in (
        (node.start, ()),
        (node.set_endpoints, ((("198.51.100.1", 4500),),)),
        (node.zone_up, ()),
        (node.reach, (1, "laptop")),
        *((node.advance, ()) for _ in range(30)),
        (node.zone_down, ("connection refused",)),
        (node.reach, (2, "laptop")),
        *((node.advance, ()) for _ in range(30)),
        (node.shutdown, ()),
    ):
        now += 0.5
        commands = method(*arguments, now, UNIX + int(now))
        recorder.called(method.__name__, arguments, now, UNIX + int(now), commands)
    recording.end()


def test_it_is_played_from_the_files_of_then(config: HostConfig, tmp_path: Path) -> None:
    file = tmp_path / "a.recording"
    record(config, file)
    assert config.account is not None
    for name in IN_STATE_DIR:
        (config.state_dir / name).unlink(missing_ok=True)
    config.beside(config.account.certificate_file).write_bytes(b"another one by now")
    config.beside(LEDGER).write_text(Ledger(number=7).to_json())
    replay = Replay(file, config)
    replay.run()
    assert replay.end == "the host ended"
    assert replay.calls == 67
    assert "Python" in replay.version
    assert replay.node is not None
    facts = replay.node.explain("laptop", replay.ended_at)
    assert facts is not None
    said = [event["why"] for event in facts["events"]]
    assert "an earlier run of ours was told this of it" in said
    assert any(one.startswith("it cannot be reached") for one in said)


def test_it_can_be_played_up_to_a_moment(config: HostConfig, tmp_path: Path) -> None:
    file = tmp_path / "a.recording"
    record(config, file)
    replay = Replay(file, config)
    replay.run(until=2.0)
    assert replay.ended_at - replay.began == 2.0
    assert replay.calls == 5


def test_secrets_are_those_of_now_and_not_in_the_recording(
    config: HostConfig, tmp_path: Path
) -> None:
    file = tmp_path / "a.recording"
    record(config, file)
    assert config.account is not None
    path = config.account_secret_path()
    assert path is not None
    secret = path.read_bytes()
    other = secret[:5] + (b"A" if secret[5:6] != b"A" else b"B") + secret[6:]
    store.write_secret(path, other, replace=True)
    with pytest.raises(RecordingError, match="another secret"):
        Replay(file, config).run()


def test_another_configuration_at_another_place_does_not_matter(
    config: HostConfig, tmp_path: Path
) -> None:
    """It was recorded; only where secrets are comes from the one that is there."""
    file = tmp_path / "a.recording"
    record(config, file)
    text = config.path.read_text().replace('name = "desk"', 'name = "other"')
    config.path.write_text(text)
    replay = Replay(file, load_host(config.path))
    replay.run()
    assert replay.node is not None
    assert replay.node.identity.label == "desk"


def test_every_file_that_a_node_is_made_from_is_recorded() -> None:
    assert set(IN_STATE_DIR) == {SERVICES, RECORDS, PROOFS, "revoked.crl"}
    fields = set(Ingredients.__dataclass_fields__)
    assert fields == {"config", "account", "static", "papers", "services", "withdrawn"}


def test_a_recording_of_nothing_is_refused(config: HostConfig, tmp_path: Path) -> None:
    recording = Recording(tmp_path / "a.recording", config)
    recording.end()
    with pytest.raises(RecordingError, match="does not say what its node was made from"):
        Replay(tmp_path / "a.recording", config).run()
