"""Prompt and step of the networks that generate, in plain torch: as the network itself, padded or not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hush.models import registry
from hush.models.gpt2 import GPT2, GPT2Config
from hush.models.llama import Llama, LlamaConfig
from hush.mpc.errors import ModelError

CONTEXT, VOCABULARY, LENGTH, NEW = 24, 37, 7, 12
NETS: dict[str, tuple[type[nn.Module], object]] = {
    "gpt2": (GPT2, GPT2Config(VOCABULARY, CONTEXT, 24, 3, 3)),
    "llama": (Llama, LlamaConfig(VOCABULARY, 24, 32, 3, 3, max_position_embeddings=CONTEXT)),
    "llama-gqa": (Llama, LlamaConfig(VOCABULARY, 32, 32, 3, 4, 2, max_position_embeddings=CONTEXT)),
    "llama-mqa": (Llama, LlamaConfig(VOCABULARY, 32, 32, 2, 4, 1, 6, CONTEXT, tie_word_embeddings=True)),
}


def scrambled(network: type[nn.Module], config: object) -> nn.Module:
    """A network whose every parameter matters: far from its initialisation, logits apart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = network(config)
        for parameter in net.parameters():
            nn.init.normal_(parameter, 0.5 if parameter.ndim == 1 else 0.0, 0.3)
    return net.eval()


@pytest.fixture(scope="module", params=NETS)
def net(request: pytest.FixtureRequest) -> nn.Module:
    return scrambled(*NETS[request.param])


def halves(net: nn.Module) -> tuple[nn.Module, nn.Module]:
    make = registry.get("gpt2-base" if isinstance(net, GPT2) else "llama-7b").generator
    assert make is not None
    return make(net)


def prompts(lengths: list[int]) -> list[Tensor]:
    return [torch.randint(0, VOCABULARY, (n,), generator=torch.Generator().manual_seed(n)) for n in lengths]


def padded(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """On the left, with ids that must not matter."""
    ids = torch.stack([torch.cat([torch.full((LENGTH - len(row),), 5), row]) for row in rows])
    return ids, torch.stack([torch.arange(LENGTH) >= LENGTH - len(row) for row in rows])


def check(net: nn.Module, rows: list[Tensor], args: tuple[Tensor, ...], new: int = NEW) -> None:
    """Prompt and steps give at every token the logits of the network on what each row has so far."""
    prefill, step = halves(net)
    made = prefill(*args)
    for place in range(LENGTH, LENGTH + new + 1):
        whole = torch.stack([net(row[None])[0, -1] for row in rows])
        assert torch.allclose(made["logits"], whole, rtol=0, atol=1e-5)
        chosen = whole.argmax(-1)
        rows = [torch.cat([row, token[None]]) for row, token in zip(rows, chosen, strict=True)]
        if place < LENGTH + new:
            token = torch.nn.functional.one_hot(chosen, VOCABULARY)
            made = step(token, torch.tensor([place]), made["state"])


@torch.no_grad()
def test_steps_after_a_prompt_without_padding(net: nn.Module) -> None:
    rows = prompts([LENGTH, LENGTH])
    check(net, rows, (torch.stack(rows),), CONTEXT - LENGTH)
    check(net, rows, padded(rows))


@torch.no_grad()
def test_steps_after_padded_prompts(net: nn.Module) -> None:
    rows = prompts([1, 2, 5, 6, 7])
    check(net, rows, padded(rows))


@torch.no_grad()
def test_state_is_finite_and_grows_by_one(net: nn.Module) -> None:
    prefill, step = halves(net)
    before = prefill(*padded(prompts([1, 4])))["state"]
    after = step(torch.eye(VOCABULARY, dtype=torch.int64)[:2], torch.tensor([LENGTH]), before)["state"]
    assert set(before) == set(after)
    assert all(bool(t.isfinite().all()) for t in before.values())
    for name, tensor in before.items():
        grows = {"k": 2, "v": 2, "mask": 1}.get(name.split(".")[0])
        longer = [after[name].shape[d] - n for d, n in enumerate(tensor.shape)]
        assert longer == [int(d == grows) for d in range(tensor.ndim)]


def test_halves_share_the_parameters(net: nn.Module) -> None:
    own = {id(p) for p in net.parameters()}
    assert all({id(p) for p in half.parameters()} == own for half in halves(net))


def test_too_long_a_prompt_is_refused(net: nn.Module) -> None:
    with pytest.raises(ModelError, match=f"{CONTEXT + 1} positions are asked for, and the network has {CONTEXT}"):
        net(torch.zeros(1, CONTEXT + 1, dtype=torch.int64))
    with pytest.raises(ModelError, match="positions are asked for"):
        halves(net)[0](torch.zeros(1, CONTEXT + 1, dtype=torch.int64))
