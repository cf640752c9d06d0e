"""CrypTen's runner without CrypTen: the error that says how to install it, and every part that needs no party."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hush
from hush.mpc.errors import UserError
from hush.mpc.ring import RING32, RING64, Ring
from hush.mpc.schedule import UNDEALT
from hush.mpc.secret import Shared
from hush.mpc.step import Step, together
from hush.parties.cli import main
from hush.parties.crypten.pipe import Pipe, PipeClosedError, Tag
from hush.parties.report import combine
from hush.proto import party_pb2 as pb
from hush.protocols.crypten import library, order, sharing
from hush.protocols.crypten.beat import Beat, run, talk
from hush.protocols.crypten.protocol import CrypTen
from hush.protocols.crypten.wide import Wide, widened

WAY_OUT = 'pip install "torch==<the version you have>" "hush[crypten]"'


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "installed", lambda: False)


@pytest.mark.usefixtures("without")
def test_bench_without_the_extra_says_how_to_install_it(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "bert-base", "--size", "tiny", "--protocol", "crypten"]) != 0
    out, err = capfd.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert "CrypTen is not installed" in line
    assert WAY_OUT in line


@pytest.mark.usefixtures("without")
def test_compare_without_the_extra_says_how_to_install_it() -> None:
    with pytest.raises(UserError, match=r"hush\[crypten\]"):
        hush.compare(torch.nn.GELU(), (torch.ones(3),), protocol="crypten")


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(UserError, match="protocol='crypt' is unknown: say 'replicated' or 'crypten'"):
        hush.compare(torch.nn.GELU(), (torch.ones(3),), protocol="crypt")


def test_a_folder_of_that_name_is_not_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "crypten").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert not library.installed()


def test_nothing_imports_crypten_before_it_is_needed() -> None:
    modules = "hush.parties.cli, hush.parties.compare, hush.parties.crypten.party, hush.protocols.crypten.protocol"
    code = f"import sys, {modules}; sys.exit('crypten' in sys.modules)"
    source = str(Path(hush.__file__).parents[1])
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": source}).returncode == 0


def test_messages_come_as_they_were_sent_until_the_pipe_is_closed() -> None:
    out, back = os.pipe()
    with os.fdopen(out, "rb") as reader, os.fdopen(back, "wb") as writer:
        pipe = Pipe(reader, writer)
        pipe.send(Tag.READY)
        pipe.send(Tag.TENSOR, [b"ab", memoryview(b"cde")])
        pipe.send(Tag.READY)
        assert pipe.receive() == (Tag.READY, bytearray())
        assert pipe.take(Tag.TENSOR) == bytearray(b"abcde")
        with pytest.raises(ValueError, match="a TENSOR message is due, not READY"):
            pipe.take(Tag.TENSOR)
        writer.write(b"\x03\x10")  # half of a header
        writer.close()
        with pytest.raises(PipeClosedError):
            pipe.receive()
        with pytest.raises(PipeClosedError):
            pipe.send(Tag.READY)


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3)])
def test_shares_add_up_and_are_fresh(shape: tuple[int, ...]) -> None:
    elements = torch.full(shape, -(1 << 63))
    first, second = sharing.deal(elements), sharing.deal(elements)
    assert torch.equal(sharing.reconstruct(first), elements)
    assert first[0].shape == first[1].shape == elements.shape
    if elements.numel():
        assert not torch.equal(first[0], second[0])


def test_its_parties_deal_no_trees() -> None:
    """The schedule that programs have by default would ask for them: norms of few rows."""
    assert CrypTen(0).schedule == UNDEALT
    assert UNDEALT.round_blocks == 0
    assert not UNDEALT.deals


def test_a_wide_ring_takes_a_narrow_one_s_place_and_does_not_wrap() -> None:
    ring = widened(RING32)
    assert isinstance(ring, Wide)
    assert ring == RING32
    assert hash(ring) == hash(Wide(32))
    assert ring != Ring(31)
    far = torch.tensor([1 << 40, -1])
    x = Shared((far,), 0, ring)
    assert torch.equal(ring.signed(ring.reduce(far)), far)
    assert torch.equal(x.sum(0).parts[0], far.sum())
    assert widened(RING64) is RING64
    with pytest.raises(TypeError, match="truncate"):
        ring.shift_right(far, 1)


def test_what_needs_no_message_is_a_share_of_the_result() -> None:
    parties = [CrypTen(rank) for rank in range(2)]
    value, matrix = torch.tensor([[0.5, -1.25]]), torch.tensor([[2], [3]])

    def opened(shares: list[Shared]) -> list[float]:
        return (sharing.reconstruct([s.parts[0] for s in shares]).double() * 2.0 ** -shares[0].frac).flatten().tolist()

    xs = [p.constant(value) for p in parties]
    assert opened([p.add_public(p.scale(x, -2), 1.0) for p, x in zip(parties, xs, strict=True)]) == [0.0, 3.5]
    assert opened([p.matmul_int(x, matrix) for p, x in zip(parties, xs, strict=True)]) == [-2.75]
    assert opened([p.sub(p.rescale(x, 20), p.rescale(x, 20)) for p, x in zip(parties, xs, strict=True)]) == [0.0, 0.0]
    assert opened([p.affine([x, x], [3, -1], [1.0]) for p, x in zip(parties, xs, strict=True)]) == [2.0, -1.5]


def test_steps_beat_side_by_side_and_talk_in_order() -> None:
    order_of: list[str] = []

    def two(name: str) -> Step[str]:
        for _ in range(2):
            yield from talk(lambda: order_of.append(name))
        return name

    assert isinstance(next(two("a")), Beat)
    assert run(together(two("a"), two("b"))) == ("a", "b")
    assert order_of == ["a", "b", "a", "b"]


def test_too_many_rows_to_shuffle_are_refused() -> None:
    with pytest.raises(UserError, match="2048 rows are the most, not 2049"):
        order.shuffle(torch.zeros(2049, dtype=torch.int64), 0)


def test_reports_of_two_parties_make_one() -> None:
    layer = pb.Layer(name="0", bytes_sent=5, messages=2, depth=2, seconds=0.5)
    reports = [pb.Report(bytes_sent=5, messages=2, depth=2, seconds=s, peak_rss=9, layers=[layer]) for s in (1.0, 2.0)]
    made = combine(reports, 3.0, 7)
    assert (made.cost.rounds, made.cost.bytes_sent, made.cost.messages) == (2, (5, 5), (2, 2))
    assert (made.party_seconds, made.peak_rss) == ((1.0, 2.0), (9, 9))
    assert (made.layers[0].bytes_sent, made.layers[0].rounds) == ((5, 5), 2)
