"""One exception tree: everything raised on purpose is a HushError, and reasons come from a closed list."""

from __future__ import annotations

import inspect

from hush.mpc import errors


def test_every_exception_derives_from_hush_error() -> None:
    kinds = [k for _, k in inspect.getmembers(errors, inspect.isclass) if issubclass(k, Exception)]
    kinds = [k for k in kinds if k.__module__ == errors.__name__ and not issubclass(k, Warning)]
    assert len(kinds) > 8
    assert all(issubclass(k, errors.HushError) for k in kinds)
    assert issubclass(errors.HushWarning, UserWarning)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = errors.__doc__ or ""
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.HushError):
            assert name in drawn, f"{name} is missing from the drawn tree"


def test_a_party_error_names_the_party_and_the_reason() -> None:
    error = errors.DeadlineExceeded(2, errors.AbortReason.DEADLINE, "after 5 s")
    assert isinstance(error, errors.PartyError)
    assert str(error) == "party 2: deadline exceeded (after 5 s)"
    assert str(errors.PartyError(None, errors.AbortReason.INTERNAL)) == "a party: internal error"
