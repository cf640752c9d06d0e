"""Session keys: X25519 between each pair of parties inside their TLS link, then HKDF-SHA256.

Both private keys are drawn for one session and forgotten with it, so nothing can make a key twice: a retry, a restart
or a reconnection is a new session with new keys. The client takes no part. HKDF's info binds both certificates, the
roster, the program, the deployment, the session and its client: parties that disagree about any never share a key.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hush.mpc.errors import AbortReason, PartyError
from hush.mpc.prg import KEY_BYTES, Stream
from hush.proto.party_pb2 import Hello

VERSION = 1
SESSION_BYTES = 16


@dataclass(frozen=True, slots=True)
class Terms:
    """What all three parties must agree on before they compute together. None of it is secret."""

    session: bytes
    roster: bytes
    program: bytes
    deployment: bytes
    client: bytes  # fingerprint of the client's certificate


@dataclass(frozen=True, slots=True, repr=False)
class LinkKeys:
    """One end's keys of one pair in one session: the common one, the proof to show, the proof due from the other."""

    stream: bytes
    proof: bytes
    due: bytes

    def randomness(self) -> Stream:
        """The pair's common randomness. Made once per session: a second one would repeat the first."""
        return Stream(self.stream)


class Agreement:
    """One end of one pair's key agreement."""

    __slots__ = ("_fingerprint", "_party", "_private", "_terms")

    def __init__(self, party: int, fingerprint: bytes, terms: Terms) -> None:
        self._party, self._fingerprint, self._terms = party, fingerprint, terms
        self._private = X25519PrivateKey.generate()

    def hello(self) -> Hello:
        """What this end sends."""
        t = self._terms
        return Hello(
            version=VERSION,
            party=self._party,
            session=t.session,
            roster=t.roster,
            program=t.program,
            deployment=t.deployment,
            client=t.client,
            certificate=self._fingerprint,
            public_key=self._private.public_key().public_bytes_raw(),
        )

    def agree(self, theirs: Hello, neighbour: int) -> LinkKeys:
        """The pair's keys from the other end's hello. PartyError names the first term that differs."""
        _check(self._terms, theirs, neighbour)
        try:
            secret = self._private.exchange(X25519PublicKey.from_public_bytes(theirs.public_key))
        except ValueError:
            raise PartyError(neighbour, AbortReason.MALFORMED, "not a public key") from None
        own, first = self.hello(), neighbour == (self._party + 1) % 3
        context = _context(self._terms, *((own, theirs) if first else (theirs, own)))
        names = (b"stream", b"first", b"second") if first else (b"stream", b"second", b"first")
        return LinkKeys(*(_derive(secret, self._terms.session, name, context) for name in names))


def _check(terms: Terms, theirs: Hello, neighbour: int) -> None:
    if theirs.version != VERSION or theirs.party != neighbour or theirs.session != terms.session:
        raise PartyError(neighbour, AbortReason.MALFORMED, "hello of another party, session or version")
    if theirs.roster != terms.roster:
        raise PartyError(neighbour, AbortReason.ROSTER)
    if theirs.program != terms.program:
        raise PartyError(neighbour, AbortReason.DIGEST)
    if theirs.deployment != terms.deployment:
        raise PartyError(neighbour, AbortReason.UNKNOWN_MODEL, "it holds another deployment of the model")
    if theirs.client != terms.client:
        raise PartyError(neighbour, AbortReason.MALFORMED, "it serves another client under this session's name")


def _context(terms: Terms, first: Hello, second: Hello) -> bytes:
    """Both ends (party i, then i+1) and everything agreed, each item with its length, hashed."""
    ends = [part for h in (first, second) for part in (bytes([h.party]), h.certificate, h.public_key)]
    digest = hashlib.sha256(b"hush link 1")
    for item in (*ends, terms.session, terms.roster, terms.program, terms.deployment, terms.client):
        digest.update(len(item).to_bytes(4, "big") + item)
    return digest.digest()


def _derive(secret: bytes, salt: bytes, purpose: bytes, context: bytes) -> bytes:
    return HKDF(hashes.SHA256(), KEY_BYTES, salt, b"hush " + purpose + b"\0" + context).derive(secret)


def proven(proof: bytes, due: bytes, neighbour: int) -> None:
    """PartyError unless the other end has shown that it derived the same keys."""
    if not hmac.compare_digest(proof, due):
        raise PartyError(neighbour, AbortReason.MALFORMED, "it derived other keys")
