"""`hush demo`: private semantic search with all-MiniLM-L6-v2: query and embedding stay in shares."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import typer
from rich.table import Table
from torch import Tensor

from hush import api
from hush.models import minilm
from hush.models.checkpoint import Checkpoint, find_checkpoint
from hush.models.text import tokenise
from hush.mpc.compiler import Program
from hush.mpc.errors import UserError
from hush.parties.cli import console, measure
from hush.parties.cli.console import Stage
from hush.parties.cli.network import layer_table
from hush.parties.cli.options import Embedding, Lookup
from hush.parties.cost import predicted
from hush.parties.report import RunReport

SENTENCES = (
    "Medical records may be shared only with the patient's written consent.",
    "You can renew your passport online or at any post office.",
    "The recipe calls for two cups of flour and a pinch of salt.",
    "Interest rates are expected to fall again next spring.",
    "Our night train to Lisbon was delayed by six hours.",
    "Encrypt the disk before you lend anybody your laptop.",
    "Regular exercise lowers the risk of heart disease.",
    "The orchestra closed the evening with Mahler's fifth symphony.",
    "A kitten needs its first vaccination at about eight weeks.",
    "The tenant must give notice three months before moving out.",
    "Photosynthesis turns light, water and carbon dioxide into sugar.",
    "Goalkeepers may handle the ball only inside their penalty area.",
)
QUERY = "Is my doctor allowed to tell others about my illness?"
STAGES = 4 + measure.LOCAL_STAGES


@dataclass(frozen=True, slots=True)
class Found:
    """What a search gave, on shares and in plaintext."""

    query: str
    secure: Tensor
    plain: Tensor
    scores: list[float]
    plain_scores: list[float]
    program: Program
    report: RunReport

    @property
    def cosine(self) -> float:
        """Of the two embeddings."""
        return float(torch.nn.functional.cosine_similarity(self.secure.double(), self.plain.double(), dim=0))

    @property
    def max_abs_err(self) -> float:
        """Largest difference of the two embeddings."""
        return float((self.secure.double() - self.plain.double()).abs().max())


def command(
    query: Annotated[str | None, typer.Option(help="What to search for; asked for on a terminal.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
    checkpoint: Annotated[
        str | None, typer.Option(help="Another copy of the model: a folder, or a hub id.", show_default=False)
    ] = None,
    embedding: Lookup = Embedding.auto,
) -> None:
    """Private semantic search on this machine: three local parties, a real model, plaintext beside it.

    Token ids, the padding mask, every activation and the embedding are secret from each party; a party learns the
    padded length. The dozen sentences that are searched are the client's own.
    """
    asked = query if query is not None else _ask(as_json)
    if not asked.strip():
        raise UserError("the query is empty: give at least one word")
    with console.stages(STAGES) as stage:
        found = search(asked, checkpoint, embedding, stage)
    if as_json:
        console.emit(describe(found))
    else:
        _print(found)


def _ask(quiet: bool) -> str:
    if quiet or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return QUERY
    answer: str = typer.prompt("Search for", default=QUERY)
    return answer


def search(query: str, checkpoint: str | None, embedding: Embedding, stage: Stage) -> Found:
    """The whole path of one query: load, compile, start parties, share weights, warm up, ask, rank."""
    stage("loading all-MiniLM-L6-v2")
    files = find_checkpoint("minilm", minilm.PACKAGE, checkpoint)
    model = minilm.load(files)
    ids, mask = tokenise(files.tokenizer, query)
    length = ids.shape[1]
    stage(f"compiling it for {length} tokens")
    program = compiled(model, length, embedding)
    with measure.local(program, "grpc", "none", stage) as infer:
        stage("warming up on a public sentence")
        corpus = sentences(model, files)
        infer(tokenise(files.tokenizer, QUERY, max(length, 16)), None)
        report = stage("asking, on shares")
        done = infer((ids, mask), measure.layers(program, report))
    plain, _ = measure.plaintext(model, (ids, mask))
    secure = done.output[0]
    return Found(query, secure, plain[0], _scores(corpus, secure), _scores(corpus, plain[0]), program, done.report)


def compiled(model: minilm.MiniLM, length: int, embedding: Embedding = Embedding.auto) -> Program:
    """The program for one padded length. Ranges come from public sentences, never from a query."""
    *others, filled = minilm.calibration("paper", length, 1)
    return api.compile(model, filled, ranges=others, lookup=str(embedding))


def sentences(model: minilm.MiniLM, files: Checkpoint) -> Tensor:
    """Plaintext embeddings of the built-in sentences, [sentences, hidden]: they are the client's own."""
    with torch.inference_mode():
        return torch.cat([model(*tokenise(files.tokenizer, text)) for text in SENTENCES])


def _scores(corpus: Tensor, embedding: Tensor) -> list[float]:
    similar = torch.nn.functional.cosine_similarity(corpus.double(), embedding.double().unsqueeze(0))
    return [float(s) for s in similar]


def ranking(scores: list[float]) -> list[int]:
    """Places of the sentences, the most similar first."""
    return sorted(range(len(scores)), key=lambda i: -scores[i])


def describe(found: Found) -> dict[str, Any]:
    """The JSON of the contract: rankings are lists of sentences, best first."""
    cost = found.report.cost
    return {
        "query": found.query,
        "ranking": [SENTENCES[i] for i in ranking(found.scores)],
        "plain_ranking": [SENTENCES[i] for i in ranking(found.plain_scores)],
        "scores": sorted(found.scores, reverse=True),
        "plain_scores": sorted(found.plain_scores, reverse=True),
        "cosine": found.cosine,
        "max_abs_err": found.max_abs_err,
        "secure_s": round(found.report.seconds, 6),
        "bytes_sent": list(cost.bytes_sent),
        "messages": list(cost.messages),
        "rounds": cost.rounds,
        "client_bytes": found.report.client_bytes,
        "predicted": measure.cost_json(predicted(found.program)),
        "tokens": found.program.inputs[0].shape[1],
        "versions": measure.versions(),
    }


def _print(found: Found) -> None:
    out = console.out()
    secure, plain = ranking(found.scores), ranking(found.plain_scores)
    table = Table("", "on shares", "score", "in plaintext", "score", title=f"“{found.query}”")
    for place, (i, j) in enumerate(zip(secure, plain, strict=True), 1):
        scores = f"{found.scores[i]:.4f}", f"{found.plain_scores[j]:.4f}"
        table.add_row(str(place), SENTENCES[i], scores[0], SENTENCES[j] if i != j else "the same", scores[1])
    out.print(table)
    out.print(layer_table(found.report))
    same = "the same ranking" if secure == plain else "ANOTHER RANKING than plaintext"
    out.print(f"{same}; embedding: largest difference {found.max_abs_err:.1e}, cosine {found.cosine:.7f}")
    cost = found.report.cost
    agrees = "as predicted" if cost == predicted(found.program) else "NOT AS PREDICTED"
    sent = " / ".join(console.megabytes(b) for b in cost.bytes_sent)
    out.print(f"answered in {found.report.seconds:.2f} s; {cost.rounds} rounds, parties sent {sent} MB: {agrees}")
