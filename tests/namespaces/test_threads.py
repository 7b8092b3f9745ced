"""Two hosts whose engines have two pairs of threads each (decision 0031), with real programs."""

from __future__ import annotations

import pytest

from tests.namespaces.account import DESK_NAME, LAPTOP_NAME, Account
from tunnel.io.lab import Lab

pytestmark = pytest.mark.root

FLOWS = 6  # enough that both queues of TUN get some


def test_flows_of_several_queues_arrive_whole(lab: Lab) -> None:
    account = Account(lab)
    for host in (account.desk, account.laptop):
        host.change("engine", {"threads": 2})
    account.up()
    for host in (account.desk, account.laptop):
        assert host.status()["host"]["threads"] == 2
    ways = (
        (account.desk, account.laptop, DESK_NAME),
        (account.laptop, account.desk, LAPTOP_NAME),
    )
    expected, fetching = [], []
    for source, target, name in ways:
        path, digest = account.serve_file(source, 3_000_017)
        for number in range(FLOWS):
            file = target.machine.folder / f"flow-{number}"
            url = f"http://{name}{path}"
            fetching.append(
                target.machine.start(
                    *("curl", "-sS", "--max-time", "180", "-o", str(file), url),
                    name=f"curl-{number}",
                )
            )
            expected.append((target, file, digest))
    for one in fetching:
        assert one.wait(200) == 0, one.output()
    for target, file, digest in expected:
        assert target.machine.run("sha256sum", str(file)).stdout.split()[0] == digest
    for host, name in ((account.desk, LAPTOP_NAME), (account.laptop, DESK_NAME)):
        peer = host.peer(name)
        assert peer is not None
        assert "replay" not in peer["drops"], peer["drops"]
