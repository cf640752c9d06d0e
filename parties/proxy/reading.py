"""Tokens to text as they come: only text that later tokens cannot change, and none beyond a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
_PARTIAL = "\ufffd"  # what a decoder makes of bytes that are no whole character


class Reader:
    """Reads an answer. `feed` gives the text that has become certain; `finish` what is left when no token follows.

    Tokens of byte-level vocabularies end within characters, and others change the space before them: so all tokens are
    decoded each time, and what is new is given. Characters that are not whole wait, and so does what may become a stop
    string. After a stop string `stopped` is true, and nothing more is given.
    """

    def __init__(self, decode: Decode, stops: Sequence[str] = (), *, strip: bool = False) -> None:
        self._decode, self._stops, self._strip = decode, [stop for stop in stops if stop], strip
        self._ids: list[int] = []
        self._given = ""
        self.stopped = False

    @property
    def text(self) -> str:
        """All that was given."""
        return self._given

    def feed(self, token: int) -> str:
        """One token more."""
        self._ids.append(token)
        return self._settle(final=False)

    def finish(self) -> str:
        """The end: what waited is given as it is."""
        return self._settle(final=True)

    def _settle(self, *, final: bool) -> str:
        if self.stopped:
            return ""
        text = self._decode(self._ids)
        text = text.lstrip() if self._strip else text
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped = True
            text = text[: min(found)]
        elif not final:
            text = text.rstrip(_PARTIAL)
            text = text[: len(text) - self._waiting(text)]
        return self._give(text, final=final or self.stopped)

    def _waiting(self, text: str) -> int:
        """How much of the text's end may be the beginning of a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        sizes = range(min(longest, len(text)), 0, -1)
        return next((n for n in sizes if any(stop.startswith(text[-n:]) for stop in self._stops)), 0)

    def _give(self, text: str, *, final: bool) -> str:
        """What extends the text given so far. A decoder that takes something back is waited for: it may return it."""
        if not final and not text.startswith(self._given):
            return ""
        new = text[len(self._given) :]
        self._given += new
        return new
