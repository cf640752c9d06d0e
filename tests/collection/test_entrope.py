"""EntroPE: tokens, entropies, where patches end, and masks that say the same as patches laid out one by one."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hush.models.entrope import FIRST, PAPER, TINY, Block, EntroPE, Patches, build, cut, largest
from hush.models.initial import seeded
from hush.models.registry import get
from hush.models.series import wave


def network(**changes: Any) -> EntroPE:
    """With weights that do not depend on the flags."""
    made = seeded(lambda: EntroPE(replace(TINY, **changes)))
    assert isinstance(made, EntroPE)
    made.entropy_model.wte.weight.mul_(8)
    return made


def rows_of(ids: Tensor) -> Tensor:
    return nn.functional.one_hot(ids, TINY.values).float()


def lengths_of(chosen: Tensor, most: int | None) -> list[int]:
    """A patch ends after each chosen step; one more step is to come; long patches are cut."""
    ends = [t for t, one in enumerate(chosen.tolist()) if one]
    whole = [b - a for a, b in zip([-1, *ends], [*ends, len(chosen)], strict=True)]
    most = most or len(chosen) + 1
    return [min(most, n - done) for n in whole for done in range(0, n, most)]


def laid_out(module: EntroPE, rows: Tensor, lengths: list[int]) -> Tensor:
    """`EntroPE.represent` of one series, its patches as numbers and no more of them than there are."""
    count, steps = len(lengths), rows.shape[1]
    ids = torch.arange(count).repeat_interleave(torch.tensor(lengths))[:steps]
    h = module.encoder(rows @ module.tok_embeddings.weight[FIRST:])
    empty = h.new_zeros(1, count, h.shape[-1])
    index = ids[None, :, None].expand(h.shape)
    mixed = empty.scatter_reduce(1, index, h, "amax", include_self=False)
    numbers = torch.arange(count)[:, None]
    mixed = mixed + module.pool(mixed, h, (ids <= numbers)[None])
    for block in module.global_transformer:
        mixed = block(mixed)
    decoded: Tensor = module.norm(module.decoder(h + module.fuse(h, mixed, (ids[:, None] >= numbers.T)[None])))
    return decoded


def test_parameters_at_paper_size() -> None:
    """By hand. A block: four projections 8 x 8, SwiGLU 3 x 8 x 256, two norms; five of them. Two cross-attentions, the
    last norm, tokens 256 x 8, RevIN, the head. The entropy model: tokens 256 x 32, places 96 x 32, two blocks."""
    block, cross = 4 * 64 + 3 * 8 * 256 + 2 * 8, 4 * 64 + 2 * 8
    network = 5 * block + 2 * cross + 8 + 256 * 8 + 2 * 7 + (8 * 96 * 96 + 96)
    entropy = 256 * 32 + 96 * 32 + 2 * (12 * 32 * 32 + 2 * 32) + 32
    assert get("entrope").sizes["paper"].parameters() == network + entropy == 144_518


@pytest.mark.parametrize(("quantile", "count"), [(0.75, 24), (0.85, 15), (0.9, 10), (0.95, 5)])
def test_the_number_of_boundaries_is_that_of_the_quantile(quantile: float, count: int) -> None:
    scores = torch.rand(20, 96, dtype=torch.float64)
    assert replace(PAPER, patching_threshold=quantile).boundaries == count
    above = scores > scores.quantile(quantile, 1, keepdim=True)
    assert torch.equal(largest(scores, count), above.long())


def test_equal_scores_give_the_earlier() -> None:
    assert largest(torch.tensor([[1.0, 2.0, 2.0, 0.0, 2.0]]), 2).tolist() == [[0, 1, 1, 0, 0]]


def test_tokens_are_bins_of_a_series_over_its_mean_magnitude() -> None:
    series = torch.randn(5, 48).double()
    tokenizer = network().double().tokenizer
    centres = torch.linspace(TINY.low_limit, TINY.high_limit, TINY.vocab_size - 4 - 1).double()
    scaled = series / series.abs().mean(1, keepdim=True)
    ids = torch.bucketize(scaled, (centres[1:] + centres[:-1]) / 2, right=True)
    rows = tokenizer(series)
    assert torch.equal(rows.argmax(-1), ids)
    assert torch.equal(rows.sum(-1), torch.ones(5, 48))


def test_entropies() -> None:
    model, rows = network().entropy_model, rows_of(torch.randint(TINY.values, (3, 48)))
    wanted = torch.distributions.Categorical(logits=model(rows)).entropy()
    torch.testing.assert_close(model.entropies(rows), wanted, atol=1e-5, rtol=1e-5)
    assert wanted.max() < math.log(TINY.vocab_size)


def test_entropies_look_back_only() -> None:
    model, ids = network().entropy_model, torch.randint(TINY.values, (1, 48))
    other = ids.clone()
    other[:, 30:] = (ids[:, 30:] + 7) % TINY.values
    torch.testing.assert_close(model.entropies(rows_of(ids))[:, :30], model.entropies(rows_of(other))[:, :30])


def test_the_entropy_model_is_frozen() -> None:
    made = EntroPE(TINY)
    assert {name.split(".")[0] for name, p in made.named_parameters() if not p.requires_grad} == {"entropy_model"}


@pytest.mark.parametrize("most", [1, 3, 8, 16, None])
def test_long_patches_are_cut_and_places_suffice(most: int | None) -> None:
    c = replace(TINY, max_patch_length=most)
    chosen = torch.rand(50, 48).argsort(1).argsort(1) < c.boundaries
    starts = cut(nn.functional.pad(chosen.long(), (1, 0), value=1), most)
    for row, own in zip(starts, chosen, strict=True):
        lengths = lengths_of(own, most)
        assert len(lengths) <= c.patches
        assert row.nonzero()[:, 0].tolist() == [sum(lengths[:i]) for i in range(len(lengths))]


@pytest.mark.parametrize("most", [5, 16, None])
@pytest.mark.parametrize("last", [False, True])
def test_masks_say_the_same_as_patches_laid_out(most: int | None, last: bool) -> None:
    """Also where the last step is a boundary, and an empty patch comes after it."""
    module = network(max_patch_length=most).double()
    rows = rows_of(torch.randint(TINY.values, (4, 48))).double()
    scores = torch.rand(4, 48)
    scores[:, -1] = 2.0 * last - 0.5
    chosen = largest(scores, TINY.boundaries)
    found = module.represent(rows, Patches(chosen, module.config))
    for i in range(4):
        wanted = laid_out(module, rows[i : i + 1], lengths_of(chosen[i], most))
        torch.testing.assert_close(found[i : i + 1], wanted)


@pytest.mark.parametrize("changes", [{"causal_patches": False}, {"normed_residual": False}, {"max_patch_length": None}])
def test_flags_change_results(changes: dict[str, Any]) -> None:
    x = wave(1, 48, 2, 0)
    plain, other = network()(x), network(**changes)(x)
    assert other.isfinite().all()
    assert (plain - other).abs().max() > 1e-4


def test_without_a_window_a_patch_sees_its_own_tokens() -> None:
    chosen = torch.zeros(1, 48, dtype=torch.long)
    chosen[:, [9, 47]] = 1
    where = Patches(chosen, replace(TINY, causal_patches=False, max_patch_length=None))
    assert where.tokens[0, :2].sum(-1).tolist() == [10, 38]
    assert where.patches.sum(-1).eq(1).all()
    assert where.live[0].tolist() == [True, True] + [False] * (TINY.boundaries - 1)


def test_variates_are_series_of_their_own_and_scale_comes_back() -> None:
    module, x = build("tiny", None), wave(2, 48, 2, 3)
    other = x.clone()
    other[..., 1] = wave(2, 48, 2, 4)[..., 1]
    torch.testing.assert_close(module(x)[..., 0], module(other)[..., 0])
    torch.testing.assert_close(module(4 * x + 8), 4 * module(x) + 8, atol=1e-2, rtol=1e-3)


def test_blocks_know_order_by_rotary_positions_only() -> None:
    block, x = Block(TINY, 6, False).requires_grad_(False), torch.randn(1, 6, 8)
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    assert (block(x[:, order]) - block(x)[:, order]).abs().max() > 1e-5
    block.cos.fill_(1)
    block.sin.zero_()
    torch.testing.assert_close(block(x[:, order]), block(x)[:, order])
