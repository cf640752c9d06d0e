"""Each claim of a paper holds at tiny size, and holds again of the answers computed on shares."""

from __future__ import annotations

import pytest
from claims import claim


@pytest.mark.parametrize("name", claim.names())
def test_a_claim_holds_in_plain_and_on_shares(name: str) -> None:
    made = claim.load(name)
    found = claim.evaluate(made)
    assert made.holds(found.plain), f"{made.says}: {found.plain} against {made.rival}"
    assert made.holds(found.secure), f"{made.says}: {found.secure} against {made.rival}"
    assert found.kept, f"{made.says}: on shares {found.secure}, in plain {found.plain}, agreement {found.agreement}"
