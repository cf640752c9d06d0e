"""The roles of a whole tensor are those of one rotation here, so that every state is seen under it."""

from __future__ import annotations

import pytest

from hush.protocols.replicated import exact, rotation


@pytest.fixture(autouse=True, params=[0], ids=["rotation0"])
def roles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Role 0 is played by this party. Tests that want all three parametrise `roles` indirectly."""
    turn: int = request.param
    for module in (rotation, exact):  # every protocol module that cuts a tensor
        monkeypatch.setattr(module, "slices", lambda numel: (rotation.Slice(turn, 0, numel),))
    return turn
