"""Every primitive on CrypTen's, beside `fixed`: bit for bit, but for truncations, which give the floor or one more."""

from __future__ import annotations

import pytest
from torch import Tensor

from hush.mpc.ring import RING64
from hush.protocols.crypten.library import installed
from hush.protocols.fixed import Fixed
from tests.conformance.harness import NARROW, ONE_ULP, alone, assert_within
from tests.conformance.rows import ROWS
from tests.crypten import primitives
from tests.crypten.pair import run_pair

if not installed():
    pytest.skip("CrypTen lives in an environment of its own: docs/crypten.md", allow_module_level=True)

NAMES = [name for name, row in ROWS.items() if 64 in row.rings]
SHAPES: list[list[int]] = [[], [0], [5], [65], [2, 3], [129, 2]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Tensor]:
    """All rows in all shapes by one pair of processes."""
    keys = [(name, index) for name in NAMES for index in range(len(SHAPES))]
    work = [("tests.crypten.primitives:result", [name, SHAPES[index], 7 + index]) for name, index in keys]
    return dict(zip(keys, run_pair(tmp_path_factory.mktemp("pair"), work), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_pair_computes_what_fixed_computes(name: str, results: dict[tuple[str, int], Tensor]) -> None:
    for index, shape in enumerate(SHAPES):
        case = primitives.case(name, shape, 7 + index)
        if case.slack == NARROW:  # no narrow truncation here: as close as any other
            object.__setattr__(case, "slack", ONE_ULP)
        assert_within(results[name, index], alone(Fixed(RING64, primitives.FRAC), case), case, RING64)
