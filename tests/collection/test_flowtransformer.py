"""FlowTransformer: its parts against their definitions, and what each head can and cannot tell apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import hush
from hush.models.flowtransformer import (
    BERT,
    GPT,
    PAPER,
    TINY,
    DecoderBlock,
    EncoderBlock,
    FlowTransformer,
    FlowTransformerConfig,
    HeadKind,
    InputEncoding,
    MultiHeadAttention,
    example,
    prepared,
)
from hush.models.initial import seeded
from hush.models.registry import get

HEADS: tuple[HeadKind, ...] = ("last", "flatten", "average", "cls", "featurewise")


def made(**changes: object) -> FlowTransformer:
    """A tiny network with seed 0."""
    network = seeded(lambda: FlowTransformer(replace(TINY, **changes)))  # type: ignore[arg-type]
    assert isinstance(network, FlowTransformer)
    return network


def flows(batch: int = 3) -> Tensor:
    return example("tiny", TINY.window, batch, 1)[0]


def count(c: FlowTransformerConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in FlowTransformer(c).parameters())


def test_parameters() -> None:
    """Published: printed in the official demonstration.ipynb, its total and 83,200 a block."""
    assert get("flowtransformer").sizes["paper"].parameters() == 192_065
    assert sum(p.numel() for p in EncoderBlock(PAPER).parameters()) == 83_200
    assert PAPER.features == 268


@pytest.mark.parametrize(("c", "key_dim"), [(GPT, 64), (BERT, 768)])
def test_parameters_of_the_named_transformers(c: FlowTransformerConfig, key_dim: int) -> None:
    """By hand: a head is 64 wide in GPT's decoder blocks, 768 in BERT's encoder blocks; D 64, inner 768, 12 heads."""
    projected = 12 * key_dim
    attention = 3 * (64 * projected + projected) + projected * 64 + 64
    block = attention + (64 * 768 + 768) + (768 * 64 + 64) + 2 * 2 * 64
    assert count(c) == (268 * 64 + 64) + 12 * block + (64 * 128 + 128) + (128 + 1)


def test_attention_is_the_usual_one_where_heads_share_the_width() -> None:
    ours = MultiHeadAttention(32, 4, 8).requires_grad_(False)
    theirs = nn.MultiheadAttention(32, 4, batch_first=True).requires_grad_(False)
    theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
    theirs.out_proj.load_state_dict(ours.output.state_dict())
    x, memory = torch.randn(2, 5, 32), torch.randn(2, 7, 32)
    torch.testing.assert_close(ours(x, memory), theirs(x, memory, memory)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("block", ["encoder", "decoder"])
def test_blocks_do_not_know_the_order(block: str) -> None:
    made_of = EncoderBlock if block == "encoder" else DecoderBlock
    one, x, order = made_of(TINY).requires_grad_(False), torch.randn(2, 8, 32), torch.randperm(8)
    torch.testing.assert_close(one(x)[:, order], one(x[:, order]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("head", HEADS)
def test_what_a_head_can_tell_apart(head: HeadKind) -> None:
    """Earlier flows in another order: only heads with weights for each place see it. The last flow elsewhere: an
    average and CLS do not."""
    network, x = made(head=head), flows()
    mixed = x[:, [3, 0, 6, 1, 5, 2, 4, 7]]
    assert torch.allclose(network(x), network(mixed), atol=1e-5) == (head not in ("flatten", "featurewise"))
    turned = x.roll(1, 1)
    assert torch.allclose(network(x), network(turned), atol=1e-5) == (head in ("average", "cls"))


def test_cls_adds_a_row_with_a_column_of_its_own() -> None:
    network, x = made(head="cls"), torch.randn(2, 8, 32)
    grown = network.head.before(x)
    assert grown.shape == (2, 9, 33)
    assert torch.equal(grown[:, :8, :32], x)
    assert grown[:, 8, :32].abs().sum() == grown[:, :8, 32].abs().sum() == 0
    assert (grown[:, 8, 32] == 1).all()


def test_an_encoder_block_forgets_its_input_where_attention_is_silent() -> None:
    """The official code's last sum has no path past attention; with the flag off it is that of a post-norm block."""
    x = torch.randn(2, 8, 32)
    for odd in (True, False):
        block = EncoderBlock(replace(TINY, attention_residual=odd)).requires_grad_(False)
        block.attention.output.weight.zero_()
        block.feed_forward_1.weight.zero_()
        once = nn.functional.layer_norm(x, (32,), eps=1e-6)
        wanted = torch.zeros_like(x) if odd else nn.functional.layer_norm(once, (32,), eps=1e-6)
        torch.testing.assert_close(block(x), wanted, atol=1e-5, rtol=0)


def test_a_decoder_block_uses_one_attention_and_one_norm_twice() -> None:
    shared, apart = (DecoderBlock(replace(TINY, shared=s)).requires_grad_(False) for s in (True, False))
    state = shared.state_dict()
    apart.load_state_dict(state)  # both names of a shared part are in the state
    x = torch.randn(2, 8, 32)
    assert torch.equal(shared(x), apart(x))
    extra = sum(p.numel() for p in apart.parameters()) - sum(p.numel() for p in shared.parameters())
    assert extra == sum(p.numel() for p in shared.mha.parameters()) + 2 * 32


@pytest.mark.parametrize(
    "changes",
    [{"attention_residual": False}, {"relu_output": False}, {"block": "decoder"}, {"encoding_bias": False}],
)
def test_flags_change_the_answer(changes: dict[str, object]) -> None:
    usual, other = made(), made(**changes)
    for network in (usual, other):
        for name, parameter in network.named_parameters():
            if name == "encoding.embed.0.bias":
                parameter.fill_(0.5)
    assert (usual(flows()) - other(flows())).abs().max() > 1e-4


def test_a_layer_for_each_category_is_a_record_layer_with_blocks() -> None:
    encoding = InputEncoding(replace(TINY, encoding="categorical", embed_dimension=5)).requires_grad_(False)
    matrices = [torch.eye(TINY.numeric), *(layer.weight for layer in encoding.embed)]
    x = flows()
    torch.testing.assert_close(encoding(x), x @ torch.block_diag(*matrices).T)
    first = encoding.embed[0].weight.T[x[..., 10:18].argmax(-1)]  # as a look-up of the first category's codes
    torch.testing.assert_close(encoding(x)[..., 10:15], first)


def test_records_are_prepared_as_in_training() -> None:
    low, high = torch.tensor([2.0, 0.0]), torch.tensor([102.0, 1e6])
    values = torch.tensor([[2.0, 0.0], [102.0, 1e6], [12.0, 999.0]])
    records = prepared(values, low, high, torch.tensor([[0], [2], [1]]), (3,))
    expected = [[0, 0], [1, 1], [torch.log(torch.tensor(11.0)) / torch.log(torch.tensor(101.0)), 0.5]]
    torch.testing.assert_close(records[:, :2], torch.tensor(expected), atol=1e-4, rtol=0)
    assert torch.equal(records[:, 2:], torch.eye(3)[[0, 2, 1]])


def test_an_alert_is_the_side_of_a_likelihood() -> None:
    x = flows(40)
    alert, likely, logit = (made(answer=a) for a in ("alert", "probability", "logit"))
    for network in (alert, likely, logit):
        network.out.bias.fill_(1.8)  # about half of the windows
    assert torch.equal(alert(x), likely(x) > 0.5)
    torch.testing.assert_close(likely(x), torch.sigmoid(logit(x)))
    assert 0.1 < alert(x).float().mean() < 0.9


def test_an_alert_alone_can_be_opened() -> None:
    network = made(answer="alert")
    network.out.bias.fill_(1.8)
    compared = hush.compare(network, (flows(6),))
    assert compared.secure.dtype == torch.bool
    assert torch.equal(compared.secure, compared.plain)
