"""The end-to-end SA may be of either mode, by relay and directly (I3)."""

from __future__ import annotations

import pytest

from fastpath.reference.datapath import WritePacket
from fastpath.types import Mode
from tests.fastpath.relays import A_TO_B, AT_A, AT_B, AT_H, HOST_A, HOST_B, sa
from tests.fastpath.support import ipv6
from tests.fastpath.test_relay import home_agent, host_a, host_b, sent


@pytest.mark.parametrize("mode", list(Mode))
def test_data_go_by_relay_and_then_directly_in_either_mode_i3(mode: Mode) -> None:
    a, b, packet = host_a(), host_b(), ipv6(HOST_A, HOST_B, b"hello", 17)
    a.install_outbound(sa(A_TO_B, HOST_A, HOST_B, inbound=False, mode=mode))
    b.install_inbound(sa(A_TO_B, HOST_A, HOST_B, inbound=True, mode=mode))
    [nested] = sent(a.outbound(packet))
    assert nested.endpoint == AT_H
    [forwarded] = sent(home_agent().inbound(nested.data, AT_A))
    assert b.inbound(forwarded.data, AT_H)[-1] == WritePacket(packet)
    a.set_flow(HOST_B, A_TO_B, AT_B)
    [direct] = sent(a.outbound(packet))
    assert direct.endpoint == AT_B
    assert b.inbound(direct.data, AT_A)[-1] == WritePacket(packet)
