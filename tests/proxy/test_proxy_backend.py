"""What a program says of the texts it takes, and a client's answers as the proxy needs them."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from support.decoder import Decoder, Next, Prefill
from torch import Tensor, nn

from hush.mpc.compiler import Program, compile_generator, compile_module
from hush.mpc.errors import AbortReason, PartyError, ShapeError, UserError
from hush.parties import client as client_module
from hush.parties.client import Client
from hush.parties.proxy.backend import Facts, PartyBackend, encoder_call, facts


class Encoder(nn.Module):
    """Vectors of words, whole or as their mean."""

    def __init__(self, mean: bool = True) -> None:
        super().__init__()
        self.words, self.mean = nn.Embedding(9, 4), mean

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        x = self.words(input_ids)
        x = x if attention_mask is None else x * attention_mask.to(x.dtype)[..., None]
        x = x if token_type_ids is None else x + self.words(token_type_ids)
        return x.mean(1) if self.mean else x


IDS = torch.arange(6)[None]


def program(*args: Any, mean: bool = True) -> Program:
    return compile_module(Encoder(mean).eval(), (IDS, *args))


def test_facts_of_programs() -> None:
    assert facts(program()) == Facts((6,), False)
    assert facts(program(torch.ones(1, 6, dtype=torch.bool))) == Facts((6,), True)
    assert facts(program(torch.ones(1, 6, dtype=torch.int64))) == Facts((6,), True)
    for args in ((torch.randn(1, 4),), (torch.randn(2),)):
        with pytest.raises(UserError, match=r"\[1, length\]"):
            facts(compile_module(nn.ReLU(), args))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
def test_texts_are_padded_on_the_right_behind_a_mask_of_the_declared_kind(dtype: torch.dtype) -> None:
    call = encoder_call(program(torch.ones(1, 6, dtype=dtype)), [5, 7], 3)
    assert call["input_ids"].tolist() == [[5, 7, 3, 3, 3, 3]]
    assert call["attention_mask"].dtype == dtype
    assert call["attention_mask"].long().tolist() == [[1, 1, 0, 0, 0, 0]]


def test_texts_that_do_not_fit_and_programs_that_take_more() -> None:
    assert list(encoder_call(program(), [1] * 6, 0)) == ["input_ids"]
    with pytest.raises(ShapeError, match="exactly 6"):
        encoder_call(program(), [1] * 5, 0)
    with pytest.raises(ShapeError, match="deployed for 6"):
        encoder_call(program(torch.ones(1, 6, dtype=torch.bool)), [1] * 7, 0)
    with pytest.raises(UserError, match="token_type_ids"):
        encoder_call(program(torch.ones(1, 6, dtype=torch.bool), IDS), [1], 0)


class Asked:
    """A client that gives a fixed output."""

    def __init__(self, made: Program, output: Any) -> None:
        self._made, self.output = made, output

    def program(self, model: str) -> Program:
        return self._made

    def run(self, model: str, args: Any, kwargs: Any) -> Any:
        return self


def test_an_embedding_is_the_one_vector_among_the_outputs() -> None:
    made = program()
    hidden, vector = torch.zeros(1, 6, 4), torch.tensor([[1.0, 2.0]])
    for output in (vector, (hidden, vector), {"pooled": vector, "ids": torch.ones(1, 2, dtype=torch.int64)}):
        assert PartyBackend(Asked(made, output)).embed("m", [1] * 6, 0) == [1.0, 2.0]  # type: ignore[arg-type]
    for output in (hidden, (vector, vector), torch.zeros(2, 3)):
        with pytest.raises(UserError, match="no sentence encoder"):
            PartyBackend(Asked(made, output)).embed("m", [1] * 6, 0)  # type: ignore[arg-type]


def test_a_generation_that_is_closed_while_its_session_opens_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that asks is still opening it when the caller has gone."""
    opening, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    class Slow:
        def __init__(self, *args: Any) -> None:
            opening.set()
            go_on.wait(10)

        def infer(self, *args: Any) -> None:
            assert closed.is_set()
            raise PartyError(None, AbortReason.CLOSED)

        def close(self) -> None:
            closed.set()

    monkeypatch.setattr(client_module, "Session", Slow)
    net, row = Decoder().eval(), torch.arange(6)[None]
    made = compile_generator(Prefill(net), Next(net), (row,), context=10)
    asker = Client.__new__(Client)
    asker._parties, asker._answer, asker._programs, asker._lock = None, 1.0, {"m": made}, threading.RLock()  # type: ignore[assignment]
    stream = asker.generate("m", [1] * 6, max_new_tokens=2)
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            next(stream)
        except PartyError as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert opening.wait(10)
    stream.close()
    assert not closed.is_set()
    go_on.set()
    thread.join(10)
    assert closed.is_set()
    assert len(failed) == 1
