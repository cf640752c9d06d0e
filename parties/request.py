"""What a client asks of one invocation, in public."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from hush.mpc.compiler import Program
from hush.mpc.errors import AbortReason, PartyError, UserError
from hush.mpc.functions.sampling import GREEDY, Choice
from hush.proto.party_pb2 import Choice as ChoiceMessage
from hush.proto.party_pb2 import Invoke


@dataclass(frozen=True, slots=True)
class Request:
    """`continues`: the turn that follows the last one, instead of a first one on new inputs; `first`: which of those.
    `choice`: how the turn chooses its token. The parties compare it before they compute: a different request at one of
    them ends the session. `profile`: to be told when each op computed, sent and waited. That concerns the party that is
    asked alone, and changes nothing of what the parties send to each other.
    """

    continues: bool = False
    choice: Choice = GREEDY
    first: int = 0
    profile: bool = False

    def message(self) -> Invoke:
        """As it travels."""
        choice = ChoiceMessage(temperature=self.choice.temperature, top_k=self.choice.top_k or 0)
        return Invoke(continues=self.continues, choice=choice, first=self.first, profile=self.profile)

    @classmethod
    def parse(cls, message: Invoke) -> Request:
        """From the wire; PartyError(INPUT) if nothing can be chosen like that."""
        try:
            choice = Choice(message.choice.temperature, message.choice.top_k or None)
            return cls(message.continues, choice, message.first, message.profile)
        except UserError:
            raise PartyError(None, AbortReason.INPUT, "no such way to choose a token") from None

    def inputs(self, program: Program) -> Program | None:
        """The program whose inputs the client sends with it; none where it continues."""
        if self.continues:
            return None
        return program.firsts[self.first]

    def digest(self) -> bytes:
        """What the parties compare."""
        compared = replace(self, profile=False).message()
        return hashlib.sha256(compared.SerializeToString(deterministic=True)).digest()


ALONE = Request()
