"""Hosts find each other when the rendezvous is dead: by its last word, kept on disk."""

from __future__ import annotations

import stat

import pytest

from tests.namespaces.account import DESK_NAME, Account
from tunnel.cli.demo.scenes import DESK
from tunnel.io.lab import HostMachine, Lab, wait_until

pytestmark = pytest.mark.root


def knows(host: HostMachine, name: str) -> bool:
    """Whether its file of kept records names that host."""
    path = host.state_dir / "records.json"
    return path.exists() and f'"{name}"' in path.read_text()


def test_hosts_restarted_without_the_rendezvous_connect_by_name(lab: Lab) -> None:
    account = Account(lab).up()
    desk_id = account.host_id(account.desk)
    wait_until(lambda: knows(account.laptop, DESK), 60, "the laptop has written down the desk")
    path = account.laptop.state_dir / "records.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    rendezvous = account.rendezvous.process
    assert rendezvous is not None
    rendezvous.kill()
    for host in (account.desk, account.laptop):
        assert host.process is not None
        host.process.kill()
        host.begin_up()
    for host in (account.desk, account.laptop):
        host.wait_until_up()
    account.ping(account.laptop, DESK_NAME)
    answer = account.stage.laptop.run("getent", "ahostsv6", DESK_NAME).stdout
    assert desk_id in answer.split()
    assert account.laptop.status()["zone"]["llq"] is None
