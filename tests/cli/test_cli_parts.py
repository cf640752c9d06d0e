"""Pieces of the command line: network times, progress, rankings, what local models and files are called."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hush import api
from hush.mpc.cost import Cost
from hush.mpc.errors import UserError
from hush.parties import shares
from hush.parties.cli import demo, measure
from hush.parties.cli.inputs import arrange
from hush.parties.cli.network import network_seconds
from hush.parties.cli.sources import Source


def small() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


def test_network_seconds() -> None:
    cost = Cost(10, (100_000, 50_000, 60_000), (1, 1, 1))
    assert network_seconds(cost, "wan") == pytest.approx(10 * 0.020 + 8 * 50_000 / 400e6)
    assert network_seconds(cost, "lan") == pytest.approx(10 * 0.0002 + 8 * 50_000 / 5e9)


@pytest.mark.parametrize("weights", ["secret", "public"])
def test_progress_in_megabytes_is_what_travels(weights: str) -> None:
    program = api.compile(small(), (torch.ones(3, 4),), weights=weights)
    seen: list[tuple[str, float]] = []
    progress = measure.sent_megabytes(program, lambda what, part: seen.append((what, part)))
    for count in range(1, len(program.weight_specs) + 1):
        progress(count, len(program.weight_specs))
    dtypes = shares.public_dtypes(program)
    travels = sum(sum(shares.weight_sizes(party, program, dtypes)) for party in range(3))
    seeds = 0 if dtypes else 4 * 32 * len(program.weight_specs)
    each = 12 if dtypes else 16
    assert travels - seeds == each * sum(torch.Size(s.shape).numel() for s in program.weight_specs)
    assert [part for _, part in seen] == sorted(part for _, part in seen)
    assert seen[-1][1] == 1.0


def test_progress_of_layers_only_grows() -> None:
    program = api.compile(small(), (torch.ones(3, 4),))
    parts: list[float] = []
    progress = measure.layers(program, lambda what, part: parts.append(part))
    for name in [*program.layer_costs, next(iter(program.layer_costs))]:
        progress(name)
    assert parts == sorted(parts)
    assert parts[0] == 0
    assert parts[-1] == 1


def test_ranking_puts_the_most_similar_first() -> None:
    assert demo.ranking([0.1, 0.9, -0.5, 0.3]) == [1, 3, 0, 2]


def test_short_names_hold_no_folders() -> None:
    for name, short in (("minilm", "minilm"), ("hf:/a/b/bert", "bert"), ("hf:bert/", "bert")):
        assert Source(name, small(), (), ()).short == short


def test_arguments_by_name_and_by_place() -> None:
    ids, mask = torch.ones(1, 2, dtype=torch.int64), torch.zeros(1, 2, dtype=torch.float64)
    names, path = ["ids", "past", "mask"], Path("x.npz")
    placed = arrange({"mask": mask, "ids": ids}, names, path)
    assert placed[0] is ids
    assert placed[1] is None
    assert placed[2].dtype == torch.float32
    assert arrange({0: ids}, names, path) == (ids,)
    with pytest.raises(UserError, match="no argument is called 'other'; the model takes ids, past, mask"):
        arrange({"other": ids}, names, path)
    with pytest.raises(UserError, match="holds no arguments"):
        arrange({}, names, path)
