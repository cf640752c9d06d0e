"""Late normalisation equals softmax and a product after it, for less."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.trio import Trio
from torch import Tensor

from hush.mpc.cost import total
from hush.mpc.functions.attention import attend
from hush.mpc.functions.softmax import softmax

CAUSAL = torch.full((40, 40), -math.inf).triu(1)


def tensors() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 40, 40, generator=generator, dtype=torch.float64) * 3
    v = torch.randn(2, 3, 40, 8, generator=generator, dtype=torch.float64)
    return (x * 2**18).round() / 2**18, (v * 2**18).round() / 2**18


@pytest.mark.parametrize("mask", [None, CAUSAL], ids=["whole", "causal"])
@pytest.mark.parametrize("value_bound", [5.0, 2.0**22])
def test_attend_is_softmax_times_values(mask: Tensor | None, value_bound: float) -> None:
    """The second bound is too wide for late normalisation: softmax comes first, with the same result."""
    x, v = tensors()
    trio = Trio()
    secrets = trio.share(x), trio.share(v)

    def program(p: Any, a: Any, b: Any) -> Any:
        return attend(p, a, b, bound=16.0, value_bound=value_bound, mask=mask)

    y = trio.reveal(trio.run(program, *secrets))
    expected = (x if mask is None else x + mask).softmax(-1) @ v
    assert (y - expected).abs().max() < 5e-4
    assert trio.predict(program, *secrets) == trio.traffic


def test_attend_costs_less_than_softmax_and_a_product() -> None:
    x, v = tensors()
    trio = Trio()
    secrets = trio.share(x), trio.share(v)

    def apart(p: Any, a: Any, b: Any) -> Any:
        weights = yield from softmax(p, a, bound=16.0)
        return (yield from p.matmul(weights, b))

    late = total(trio.predict(lambda p, a, b: attend(p, a, b, bound=16.0, value_bound=5.0), *secrets))
    early = total(trio.predict(apart, *secrets))
    assert late.rounds < early.rounds
    assert sum(late.bytes_sent) < sum(early.bytes_sent)
