"""The PRG: ChaCha20 as RFC 8439 has it, equal at both holders, and no nonce twice."""

from __future__ import annotations

import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hush.mpc import prg
from hush.mpc.errors import ProtocolError
from hush.mpc.prg import Stream, keystream
from hush.mpc.ring import RING32, RING64, Ring
from hush.mpc.ring.kernels import Kernels
from hush.mpc.ring.torch_backend import TorchKernels

COUNTING = bytes(range(32))
VECTORS = [  # key, nonce, block counter, keystream of that block: RFC 8439 appendix A.1, then 2.3.2 and 2.4.2
    (
        bytes(32),
        bytes(12),
        0,
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586",
    ),
    (
        bytes(32),
        bytes(12),
        1,
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f",
    ),
    (
        bytes(31) + b"\x01",
        bytes(12),
        1,
        "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a"
        "8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0",
    ),
    (
        b"\x00\xff" + bytes(30),
        bytes(12),
        2,
        "72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca"
        "13b25aa26cb4a648cb9b9d1be65b2c0924a66c54d545ec1b7374f4872e99f096",
    ),
    (
        bytes(32),
        bytes(11) + b"\x02",
        0,
        "c2c64d378cd536374ae204b9ef933fcd1a8b2288b3dfa49672ab765b54ee27c7"
        "8a970e0e955c14f3a88e741b97c286f75f8fc299e8148362fa198a39531bed6d",
    ),
    (
        COUNTING,
        bytes.fromhex("000000090000004a00000000"),
        1,
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e",
    ),
    (
        COUNTING,
        bytes.fromhex("000000000000004a00000000"),
        1,
        "224f51f3401bd9e12fde276fb8631ded8c131f823d2c06e27e4fcaec9ef3cf78"
        "8a3b0aa372600a92b57974cded2b9334794cba40c63e34cdea212c4cf07d41b7",
    ),
]


@pytest.mark.parametrize(("key", "nonce", "block", "expected"), VECTORS)
def test_keystream_is_rfc_8439(kernels: Kernels, key: bytes, nonce: bytes, block: int, expected: str) -> None:
    stream = kernels.keystream(key, nonce, 64 * (block + 1))
    assert bytes(stream[64 * block :].tolist()).hex() == expected


@given(nbytes=st.integers(0, 300))
def test_any_length_is_a_prefix(nbytes: int) -> None:
    assert torch.equal(keystream(COUNTING, bytes(12), nbytes), keystream(COUNTING, bytes(12), 300)[:nbytes])


@pytest.mark.parametrize("nbytes", [0, 1, 63, 64, 1023, 1024, 1025, 100_003])
def test_backends_make_the_same_stream(kernels: Kernels, nbytes: int) -> None:
    key, nonce = bytes(range(100, 132)), bytes(range(12))
    assert torch.equal(kernels.keystream(key, nonce, nbytes), TorchKernels().keystream(key, nonce, nbytes))


draws = st.one_of(
    st.tuples(
        st.just("elements"),
        st.lists(st.integers(0, 5), max_size=3).map(tuple),
        st.sampled_from([RING64, RING32, Ring(48), Ring(4)]),
    ),
    st.tuples(st.just("planes"), st.integers(0, 5), st.integers(0, 5)),
    st.tuples(st.just("next_invocation")),
)


def perform(stream: Stream, draw: tuple) -> torch.Tensor | None:
    return getattr(stream, draw[0])(*draw[1:])


@given(schedule=st.lists(draws, max_size=12))
def test_both_holders_draw_alike(schedule: list[tuple]) -> None:
    mine, theirs = Stream(COUNTING, 3), Stream(COUNTING, 3)
    for draw in schedule:
        a, b = perform(mine, draw), perform(theirs, draw)
        assert (a is None and b is None) or torch.equal(a, b)
        assert mine.position == theirs.position


@given(schedule=st.lists(draws, max_size=20), domains=st.lists(st.integers(0, 2**32 - 1), max_size=3, unique=True))
def test_no_nonce_twice(schedule: list[tuple], domains: list[int]) -> None:
    """Whatever the schedule, a key's nonces differ: across draws, invocations and domains."""
    used: list[tuple[bytes, bytes]] = []

    def record(key: bytes, nonce: bytes, nbytes: int) -> torch.Tensor:
        used.append((key, nonce))
        return keystream(key, nonce, nbytes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prg, "keystream", record)
        for domain in domains:
            stream = Stream(COUNTING, domain)
            for draw in schedule:
                perform(stream, draw)
    assert len(used) == len(domains) * sum(draw[0] != "next_invocation" for draw in schedule)
    assert len(set(used)) == len(used)


def test_nonce_is_invocation_draw_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    monkeypatch.setattr(prg, "keystream", lambda key, nonce, n: (seen.append(nonce), keystream(key, nonce, n))[1])
    stream = Stream(COUNTING, 7)
    stream.elements((2,), RING64)
    stream.next_invocation()
    stream.elements((2,), RING64)
    stream.planes(1, 1)
    assert seen == [struct.pack("<III", *parts) for parts in [(0, 0, 7), (1, 0, 7), (1, 1, 7)]]


def test_draws_are_elements_of_their_ring() -> None:
    for ring in (RING64, RING32, Ring(48), Ring(8), Ring(1)):
        values = Stream(COUNTING).elements((50, 40), ring)
        assert values.dtype == ring.dtype
        assert torch.equal(ring.reduce(values), values)
        assert len(values.unique()) >= (2 if ring.bits == 1 else min(1900, (1 << ring.bits) - 8))  # 2000 draws


def test_keys_domains_and_draws_give_unrelated_streams() -> None:
    first = Stream(COUNTING)
    streams = [first, first, Stream(COUNTING, 1), Stream(bytes(32))]
    values = torch.stack([s.elements((4000,), Ring(8)) for s in streams])
    for i in range(len(values)):
        for j in range(i):
            # equal bytes by chance: 4000 / 256 = 15.6, standard deviation 3.9
            assert (values[i] == values[j]).sum() < 50


def test_counters_end_before_they_repeat() -> None:
    stream = Stream(COUNTING)
    stream._invocation = 2**32 - 2
    stream.next_invocation()
    with pytest.raises(ProtocolError, match="open a new session"):
        stream.next_invocation()
    worn = Stream(COUNTING)
    worn._draw = 2**32 - 2
    worn.elements((1,), RING64)
    with pytest.raises(ProtocolError, match="exhausted"):
        worn.elements((1,), RING64)


def test_a_key_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes, not 16"):
        Stream(bytes(16))


def test_repr_shows_no_key() -> None:
    assert COUNTING.hex() not in repr(Stream(COUNTING))
    assert repr(Stream(COUNTING)) == "Stream(position=(0, 0))"
