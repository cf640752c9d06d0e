"""What accuracy is measured on: the sentence pairs, the texts and their split, the training."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from fidelity import corpus, networks, train
from torch import nn


# ---------------------------------------------------------------------- pairs
def test_pairs_are_enough_and_well_formed() -> None:
    pairs = corpus.read_pairs()
    assert len(pairs) >= 200
    for pair in pairs:
        assert pair.kind in corpus.KINDS
        for sentence in (pair.first, pair.second):
            assert sentence == sentence.strip()
            assert sentence
        assert pair.first != pair.second
    lines = corpus.PAIRS.read_text().splitlines()
    assert len(lines) == len(pairs) + 1
    assert all(line.count("\t") == 2 for line in lines)


def test_pairs_differ_in_kind_and_length() -> None:
    pairs = corpus.read_pairs()
    assert min(Counter(pair.kind for pair in pairs).values()) >= 60
    assert len({frozenset((p.first, p.second)) for p in pairs}) == len(pairs)
    words = [len(sentence.split()) for p in pairs for sentence in (p.first, p.second)]
    assert min(words) == 1
    assert max(words) >= 50


def test_a_line_that_is_no_pair_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("kind\tfirst\tsecond\nrelated\tone\ttwo\tthree\n")
    with pytest.raises(TypeError):
        corpus.read_pairs(path)


# ---------------------------------------------------------------------- texts
def test_held_out_texts_are_not_trained_on() -> None:
    seen, unseen = corpus.texts(held=False), corpus.texts(held=True)
    assert sum(map(len, seen)) > 1_000_000
    assert sum(map(len, unseen)) > 30_000
    assert not set(seen) & set(unseen)
    assert any(name.startswith("topic") for name in corpus.documents() if corpus.held_out(name))


def test_paragraphs_are_balanced_and_held_out() -> None:
    seen, unseen = corpus.paragraphs(held=False), corpus.paragraphs(held=True)
    assert not {p.text for p in seen} & {p.text for p in unseen}
    for side, least in ((seen, 1500), (unseen, 300)):
        counts = Counter(p.label for p in side)
        assert len(counts) == len(corpus.GROUPS)
        assert len(set(counts.values())) == 1
        assert len(side) >= least


# ---------------------------------------------------------------------- training
def test_pieces_are_spread_and_apart() -> None:
    row = torch.arange(100)
    assert torch.equal(train.windows(row, 10, 4)[:, 0], torch.tensor([0, 30, 60, 90]))
    with pytest.raises(ValueError, match="do not hold"):
        train.windows(row, 30, 4)


def test_the_tokenizer_keeps_every_text(tmp_path: Path) -> None:
    texts = corpus.texts(held=True)[:20]
    made = train.tokenizer(texts, 300, tmp_path)
    odd = "naïve 漢字\t\n\n\N{GRINNING FACE}"
    assert made.decode(made.encode(odd).ids, skip_special_tokens=False) == odd
    assert train.tokenizer(texts, 300, tmp_path).to_str() == made.to_str()
    row = train.stream(made, texts[:2])
    assert int((row == made.token_to_id(train.END)).sum()) == 2


def test_training_learns_once_and_alike(tmp_path: Path) -> None:
    row = torch.arange(400) % 7
    loss = train.next_token_loss(row, 12, 4)

    def fresh() -> nn.Module:
        return networks.fresh(lambda: nn.Sequential(nn.Embedding(7, 8), nn.Linear(8, 7)), 3)

    before = float(loss(fresh(), torch.Generator().manual_seed(0)).detach())
    schedule = train.Schedule(steps=60, rate=0.05)
    first = train.trained(fresh(), loss, schedule, tmp_path / "a.safetensors")
    assert float(loss(first, torch.Generator().manual_seed(0)).detach()) < before / 4
    assert not first.training
    second = train.trained(fresh(), loss, schedule, tmp_path / "b.safetensors")
    assert train.weights_digest(first) == train.weights_digest(second)

    def forbidden(module: nn.Module, generator: torch.Generator) -> torch.Tensor:
        raise AssertionError("trained although the weights are there")

    kept = train.trained(fresh(), forbidden, schedule, tmp_path / "a.safetensors")
    assert train.weights_digest(kept) == train.weights_digest(first)
    assert train.weights_digest(fresh()) != train.weights_digest(first)
