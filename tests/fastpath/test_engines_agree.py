"""The reference is the law: the native engine gives the same octets and the same verdicts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.types import Mode, SaParams, SequenceExhausted
from tests.fastpath.support import ENGINES, OUR_ID, PEER_ID, SUITES, UNHURRIED, esp_engine


@st.composite
def any_params(draw: st.DrawFn) -> SaParams:
    suite = draw(st.sampled_from(SUITES))
    return SaParams(
        spi=draw(st.integers(256, 2**32 - 1)),
        suite=suite,
        key=draw(st.binary(min_size=suite.key_octets + 4, max_size=suite.key_octets + 4)),
        local_id=OUR_ID,
        peer_id=PEER_ID,
        esn=draw(st.booleans()),
        mode=draw(st.sampled_from(list(Mode))),
        replay_window=draw(st.integers(32, 5000)),
    )


SEQUENCES = st.one_of(
    st.integers(0, 2000),
    st.integers(2**32 - 3, 2**32 + 3),
    st.integers(0, 2**64 - 1),
    st.sampled_from([2**64 - 2, 2**64 - 1]),
)


@settings(UNHURRIED, max_examples=300)
@given(any_params(), SEQUENCES, st.lists(st.binary(max_size=1500), min_size=1, max_size=4))
def test_both_engines_seal_the_same_octets(
    sa: SaParams, sequence: int, payloads: list[bytes]
) -> None:
    if not sa.esn:
        sequence %= 2**32
    ours, *natives = (esp_engine(name).OutboundSa(sa, sequence) for name in ENGINES)
    for index, payload in enumerate(payloads):
        next_header = 41 + index
        try:
            expected = ours.seal(payload, next_header)
        except SequenceExhausted:
            for native in natives:
                with pytest.raises(SequenceExhausted):
                    native.seal(payload, next_header)
        else:
            for native in natives:
                assert native.seal(payload, next_header) == expected
        assert {native.sequence for native in natives} == {ours.sequence}


MUTATIONS = st.one_of(
    st.tuples(st.just("keep"), st.just(0), st.just(0)),
    st.tuples(st.just("flip"), st.integers(0, 200), st.integers(1, 255)),
    st.tuples(st.just("cut"), st.integers(0, 200), st.just(0)),
    st.tuples(st.just("grow"), st.integers(1, 200), st.integers(0, 255)),
)


def mutate(packet: bytes, mutation: tuple[str, int, int]) -> bytes:
    kind, where, value = mutation
    if kind == "flip":
        where %= len(packet)
        return packet[:where] + bytes([packet[where] ^ value]) + packet[where + 1 :]
    if kind == "cut":
        return packet[: max(0, len(packet) - where)]
    if kind == "grow":
        return packet + bytes([value]) * where
    return packet


@settings(UNHURRIED, max_examples=300)
@given(
    any_params(),
    st.lists(
        st.tuples(st.integers(1, 300), st.binary(max_size=200), st.integers(0, 255), MUTATIONS),
        min_size=1,
        max_size=12,
    ),
)
def test_both_engines_give_the_same_verdict_on_hostile_input(
    sa: SaParams, stream: list[tuple[int, bytes, int, tuple[str, int, int]]]
) -> None:
    ours, *natives = (esp_engine(name).InboundSa(sa) for name in ENGINES)
    for sequence, payload, next_header, mutation in stream:
        honest = esp_engine("reference").OutboundSa(sa, sequence - 1).seal(payload, next_header)
        packet = mutate(honest, mutation)
        verdict = ours.open(packet)
        for native in natives:
            assert native.open(packet) == verdict
            assert native.sequence == ours.sequence
