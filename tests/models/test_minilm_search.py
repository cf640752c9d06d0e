"""Twenty varied sentences through MiniLM on shares: the embeddings, and the rankings that they give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from hush import api
from hush.models import minilm
from hush.models.checkpoint import find_checkpoint
from hush.models.text import bucket, tokenise
from hush.parties.cli import demo
from hush.parties.cli.options import Embedding
from hush.parties.threads import ThreadTrio

# Plaintext scores of neighbours in each ranking differ by more than 4e-4: a tie can go either way on shares.
VARIED = (
    "Is my doctor allowed to tell others about my illness?",
    "Where do I get a new passport?",
    "How much flour do I need for bread?",
    "train delayed again :(",
    "What happens to my files when my computer is stolen?",
    "jogging and blood pressure",
    "Mahler",
    "When should I take my cat to the vet?",
    "I want to move out of my flat in June.",
    "How do plants make sugar?",
    "penalty area rules",
    "OK",
    "SELECT name FROM patients WHERE age > 65",
    "Wie wird das Wetter morgen in Wien?",
    "3.14159 is approximately pi",
    "The cat sat on the mat.",
    "¿Dónde está la biblioteca?",
    "他们昨天去了北京",
    "COVID-19 vaccines were tested on 43,448 people.",
    "Stocks plunged after the central bank raised rates.",
)


@pytest.fixture(scope="module")
def model() -> minilm.MiniLM:
    return minilm.load(find_checkpoint("minilm", minilm.PACKAGE))


@pytest.fixture(scope="module")
def corpus(model: minilm.MiniLM) -> Tensor:
    return demo.sentences(model, find_checkpoint("minilm", minilm.PACKAGE))


def check(corpus: Tensor, plain: Tensor, secure: Tensor) -> None:
    assert cosine_similarity(plain.double(), secure.double()).min() >= 0.9999
    for a, b in zip(plain, secure, strict=True):
        assert demo.ranking((corpus @ a).tolist()) == demo.ranking((corpus @ b).tolist())


def test_twenty_sentences_in_one_batch(model: minilm.MiniLM, corpus: Tensor) -> None:
    tokenizer = find_checkpoint("minilm", minilm.PACKAGE).tokenizer
    pairs = [tokenise(tokenizer, text, 16) for text in VARIED]
    call = torch.cat([ids for ids, _ in pairs]), torch.cat([mask for _, mask in pairs])
    filled = minilm.example("paper", 16, len(VARIED), 0)
    program = api.compile(model, filled, ranges=minilm.calibration("paper", 16, len(VARIED)))
    with torch.inference_mode():
        plain = model(*call)
    with ThreadTrio(program) as trio:
        done = trio.infer(call)
    check(corpus, plain, done.output)
    assert done.report.cost == program.cost


@pytest.mark.parametrize(
    ("way", "kind", "kilobytes"), [("auto", "point", 50), ("onehot", "onehot", 8000), ("equality", "id", 20)]
)
def test_every_way_to_look_ids_up(way: str, kind: str, kilobytes: int, model: minilm.MiniLM, corpus: Tensor) -> None:
    """The client sends keys, one-hot rows or the ids themselves, and gets the same answer."""
    call = minilm.from_text(VARIED[0])
    program = demo.compiled(model, 16, Embedding(way))
    assert program.inputs[0].kind == kind
    with torch.inference_mode():
        plain = model(*call)
    with ThreadTrio(program) as trio:
        done = trio.infer(call)
    check(corpus, plain, done.output)
    assert done.report.client_bytes < 1000 * kilobytes
    assert done.report.cost == program.cost


@pytest.mark.long
@pytest.mark.parametrize("repeat", [1, 4, 12])
def test_longer_texts(model: minilm.MiniLM, corpus: Tensor, repeat: int) -> None:
    """Every bucket to 256 tokens, with the varied sentences run together."""
    for start in range(0, 20, 5):
        text = " ".join(VARIED[start : start + 5] * repeat)
        ids, mask = minilm.from_text(text)
        program = demo.compiled(model, ids.shape[1])
        with torch.inference_mode():
            plain = model(ids, mask)
        with ThreadTrio(program) as trio:
            done = trio.infer((ids, mask))
        assert ids.shape[1] == bucket(int(mask.sum()))
        assert cosine_similarity(plain.double(), done.output.double()).min() >= 0.9999
