"""Rows of a table at secret places, by one-hot shares and by equality."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.trio import Trio

from hush.mpc.functions.embedding import embedding_of_ids, embedding_of_one_hot

ROWS, WIDTH = 37, 5
TABLE = (
    torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2**18
).round() / 2**18
IDS = torch.tensor([[0, 36, 7, 7], [1, 35, 18, 0]])


@pytest.mark.parametrize("public", [False, True])
def test_one_hot_shares_choose_rows_exactly(public: bool) -> None:
    trio = Trio()
    hot = trio.share(F.one_hot(IDS, ROWS).double(), frac=0)
    table = TABLE if public else trio.share(TABLE)
    rows = trio.run(embedding_of_one_hot, hot, table)
    assert torch.equal(trio.reveal(rows), TABLE[IDS])
    assert len(trio.traffic) == (0 if public else 1)  # nothing is truncated
    assert rows[0].frac == 18


@pytest.mark.parametrize("public", [False, True])
@pytest.mark.parametrize("chunk", [1, 50, 1 << 21])
def test_ids_choose_rows_exactly(public: bool, chunk: int) -> None:
    trio = Trio()
    ids = trio.share(IDS.double(), frac=0)
    table = TABLE if public else trio.share(TABLE)

    def program(p, i, t):  # type: ignore[no-untyped-def]
        return embedding_of_ids(p, i, t, chunk=chunk)

    assert torch.equal(trio.reveal(trio.run(program, ids, table)), TABLE[IDS])
    assert trio.predict(program, ids, table) == trio.traffic


def test_ids_outside_the_table_give_zero() -> None:
    trio = Trio()
    ids = trio.share(torch.tensor([37.0, -1.0, 5.0]), frac=0)
    rows = trio.reveal(trio.run(embedding_of_ids, ids, trio.share(TABLE)))
    assert torch.equal(rows, torch.stack([TABLE[5] * 0, TABLE[5] * 0, TABLE[5]]))


def test_a_vocabulary() -> None:
    """BERT's size of vocabulary, a short query: every id is compared with 30,522 rows."""
    trio = Trio()
    table = torch.arange(30_522, dtype=torch.float64)[:, None] * torch.tensor([1.0, -1.0]) / 8
    ids = torch.tensor([101, 30_521, 0, 7592])
    rows = trio.run(lambda p, i, t: embedding_of_ids(p, i, t), trio.share(ids.double(), frac=0), trio.share(table))
    assert torch.equal(trio.reveal(rows), table[ids])


def test_an_empty_table() -> None:
    trio = Trio()
    with pytest.raises(ValueError, match="at least one row"):
        trio.run(embedding_of_ids, trio.share(torch.zeros(1), frac=0), trio.share(torch.zeros(0, 3)))
