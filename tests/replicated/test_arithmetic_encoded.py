"""Encodings of public weights are kept, and only as long as they are right."""

from __future__ import annotations

import gc

import torch

from hush.mpc.fixed_point import encode
from hush.mpc.ring import RING32, RING64
from hush.protocols.replicated.encoded import Encoded
from tests.support.trio import Trio


def test_an_encoding_is_made_once_for_each_ring_and_scale() -> None:
    encoded, weight = Encoded(), torch.randn(3, 4)
    first = encoded(weight, RING64, 18)
    assert torch.equal(first, encode(weight, RING64, 18))
    assert encoded(weight, RING64, 18) is first
    assert torch.equal(encoded(weight, RING64, 12), encode(weight, RING64, 12))
    assert torch.equal(encoded(weight, RING32, 12), encode(weight, RING32, 12))
    assert encoded(weight, RING64, 18) is first


def test_views_are_read_from_the_encoding_of_the_whole() -> None:
    encoded, weight = Encoded(), torch.randn(6, 4)
    for view in (weight.t(), weight[:4], weight[1:, ::2], weight[2], weight[:, :1].expand(6, 3), weight.t()[1:]):
        assert torch.equal(encoded(view, RING64, 18), encode(view, RING64, 18))
    assert len(encoded._kept) == 1
    assert encoded(weight.t(), RING64, 18).data_ptr() == encoded(weight[:3], RING64, 18).data_ptr()
    weight.mul_(2)
    assert torch.equal(encoded(weight.t(), RING64, 18), encode(weight.t(), RING64, 18))


def test_views_of_bytes_and_of_what_does_not_lie_in_order() -> None:
    encoded, frame = Encoded(), torch.randn(6, dtype=torch.float32).view(torch.uint8).clone()
    weight = frame.view(torch.float32).reshape(2, 3)
    for view in (weight, weight.t(), weight[1:], frame[4:].view(torch.float32)):
        assert torch.equal(encoded(view, RING64, 18), encode(view, RING64, 18))
    turned = torch.randn(3, 4).t().clone(memory_format=torch.preserve_format)
    assert torch.equal(encoded(turned[1:], RING64, 18), encode(turned[1:], RING64, 18))
    odd = torch.zeros(7, dtype=torch.uint8)[:4].view(torch.float32)
    assert torch.equal(encoded(odd, RING64, 18), encode(odd, RING64, 18))


def test_an_equal_tensor_is_another_tensor() -> None:
    encoded, weight = Encoded(), torch.ones(2)
    assert encoded(weight, RING64, 18) is not encoded(weight.clone(), RING64, 18)


def test_a_change_in_place_is_seen() -> None:
    trio, weight = Trio(), torch.eye(2)
    x = trio.share(torch.tensor([[1.0, 2.0]]))
    for factor in (1.0, 3.0):
        y = trio.run(lambda p, a: p.matmul_public(a, weight), x)
        assert torch.allclose(trio.reveal(y), torch.tensor([[1.0, 2.0]], dtype=torch.float64) * factor, atol=2.0**-17)
        weight.mul_(3.0)


def test_tensors_without_versions_are_encoded_each_time() -> None:
    encoded = Encoded()
    with torch.inference_mode():
        weight = torch.ones(2)
        weight.mul_(2)
        first = encoded(weight, RING64, 18)
        weight.mul_(2)
        assert torch.equal(encoded(weight, RING64, 18), first * 2)


def test_an_encoding_dies_with_its_tensor() -> None:
    encoded, weight = Encoded(), torch.ones(2)
    encoded(weight, RING64, 18)
    assert len(encoded._kept) == 1
    del weight
    gc.collect()
    assert len(encoded._kept) == 0
