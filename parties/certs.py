"""Certificates: one authority, and for everybody a certificate that says which role its holder plays.

The role is a URI in the subject alternative name: `hush://party/0`, `hush://client/alice`, `hush://provider/acme`.
Parties carry a DNS name too (`party-0.hush`), which whoever dials them demands, whatever address they listen on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hush.mpc.errors import ConfigError

KINDS = ("party", "client", "provider")
_SKEW = timedelta(minutes=5)  # clocks of three organisations never agree to the second


@dataclass(frozen=True, slots=True)
class Role:
    """Whom a certificate speaks for: a kind of `KINDS` and a name (a party's is its index)."""

    kind: str
    name: str

    @property
    def uri(self) -> str:
        """The form it has in a certificate."""
        return f"hush://{self.kind}/{self.name}"

    @property
    def filename(self) -> str:
        """Stem of its files: party-0, client, provider-acme."""
        return self.kind if self.name == self.kind else f"{self.kind}-{self.name}"

    @property
    def party(self) -> int | None:
        """The party's index, None for anybody else."""
        return int(self.name) if self.kind == "party" else None


DEFAULT_ROLES = (*(Role("party", str(i)) for i in range(3)), Role("client", "client"), Role("provider", "provider"))


def party_host(index: int) -> str:
    """The DNS name in a party's certificate: TLS checks it, whatever the address dialled."""
    return f"party-{index}.hush"


@dataclass(frozen=True, slots=True, repr=False)
class Authority:
    """A certificate authority that can issue: its certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, days: float) -> Authority:
        """A new authority, valid from now on for `days`."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hush authority")])
        builder = _builder(name, name, key.public_key(), datetime.now(UTC) - _SKEW, days)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signing=False), critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, directory: Path) -> Authority:
        """The authority whose `ca.pem` and `ca.key` lie in a directory; ConfigError if they do not."""
        certificate = _certificate(directory / "ca.pem")
        try:
            key = serialization.load_pem_private_key(_read(directory / "ca.key"), None)
        except ValueError:
            raise ConfigError(f"{directory / 'ca.key'} holds no private key") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"{directory / 'ca.key'} is not an elliptic curve key: make it with `hush certs init`")
        return cls(certificate, key)

    def issue(self, role: Role, days: float, start: datetime | None = None) -> tuple[bytes, bytes]:
        """(certificate, private key) of a role, both PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"hush {role.kind} {role.name}")])
        begin = start or datetime.now(UTC) - _SKEW
        builder = _builder(subject, self.certificate.subject, key.public_key(), begin, days)
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(role.uri)]
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if role.party is not None:
            names.append(x509.DNSName(party_host(role.party)))
            uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signing=True), critical=True)
        return _pem(builder.sign(self.key, hashes.SHA256())), _key_pem(key)


def create(
    directory: Path, roles: Sequence[Role] = DEFAULT_ROLES, *, days: float = 365.0, keep_authority: bool = True
) -> None:
    """Write an authority and a certificate and key for each role: `ca.pem`, `party-0.pem`, `party-0.key`...

    Keys get mode 0600. With `keep_authority` the authority's key stays in `ca.key`, so that `add` can issue more;
    without, it is never written. Refuses (ConfigError) to overwrite an authority.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if (directory / "ca.pem").exists():
        raise ConfigError(f"{directory} holds certificates already: choose another directory, or remove them first")
    authority = Authority.create(days)
    write_public(directory / "ca.pem", _pem(authority.certificate))
    if keep_authority:
        write_secret(directory / "ca.key", _key_pem(authority.key))
    for role in roles:
        _issue_files(authority, directory, role, days)


def add(directory: Path, role: Role, *, days: float = 365.0) -> None:
    """Issue one more certificate from the authority of a directory made by `create`."""
    if role.kind not in KINDS or not role.name or "/" in role.name:
        raise ConfigError(f"{role.uri} is no role: hush://party/N, hush://client/NAME or hush://provider/NAME")
    _issue_files(Authority.load(directory), directory, role, days)


def _issue_files(authority: Authority, directory: Path, role: Role, days: float) -> None:
    certificate, key = authority.issue(role, days)
    write_public(directory / f"{role.filename}.pem", certificate)
    write_secret(directory / f"{role.filename}.key", key)


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """Who this process is to the others: its role, and what TLS needs (PEM)."""

    role: Role
    authority: bytes
    certificate: bytes
    key: bytes

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the certificate."""
        return fingerprint(self.certificate)

    def __repr__(self) -> str:
        return f"Identity({self.role.uri})"


def load(authority: Path, certificate: Path, key: Path, kind: str, name: str | None = None) -> Identity:
    """Read an identity and check role, chain, dates and key as the others will. ConfigError says what is wrong."""
    ca, own = _certificate(authority), _certificate(certificate)
    for path, found in ((authority, ca), (certificate, own)):
        check_dates(found, str(path))
    try:
        own.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        raise ConfigError(f"{certificate} was not issued by {authority}: use files of one `hush certs init`") from None
    role = role_of(own)
    if role is None or role.kind != kind or name not in (None, role.name):
        wanted, has = f"hush://{kind}/{name or 'NAME'}", role.uri if role else "no Hush role"
        raise ConfigError(f"{certificate} speaks for {has}, but {wanted} is needed here")
    secret = _read(key)
    try:
        public = serialization.load_pem_private_key(secret, None).public_key()
    except (ValueError, TypeError):
        raise ConfigError(f"{key} holds no readable private key") from None
    if _public_bytes(public) != _public_bytes(own.public_key()):
        raise ConfigError(f"{key} is not the key of {certificate}")
    return Identity(role, _pem(ca), _pem(own), secret)


def role_of(certificate: x509.Certificate) -> Role | None:
    """The one Hush role of a certificate, None if it has none or several."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    uris = [u for u in names.get_values_for_type(x509.UniformResourceIdentifier) if u.startswith("hush://")]
    if len(uris) != 1:
        return None
    kind, _, name = uris[0].removeprefix("hush://").partition("/")
    if kind not in KINDS or not name or (kind == "party" and name not in ("0", "1", "2")):
        return None
    return Role(kind, name)


def parse(pem: bytes) -> x509.Certificate:
    """A certificate from PEM."""
    return x509.load_pem_x509_certificate(pem)


def fingerprint(pem: bytes) -> bytes:
    """SHA-256 of a PEM certificate's DER bytes."""
    return parse(pem).fingerprint(hashes.SHA256())


def check_dates(certificate: x509.Certificate, what: str) -> None:
    """ConfigError if today is outside a certificate's validity; names it and the date."""
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        day = certificate.not_valid_after_utc.strftime("%Y-%m-%d %H:%M UTC")
        raise ConfigError(f"{what} expired on {day}: issue a new one with `hush certs init`")
    if now + _SKEW < certificate.not_valid_before_utc:
        day = certificate.not_valid_before_utc.strftime("%Y-%m-%d %H:%M UTC")
        raise ConfigError(f"{what} is valid only from {day}: check this machine's clock")


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, never for a moment readable by others."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def write_public(path: Path, content: bytes) -> None:
    """Write a file that others may read."""
    path.write_bytes(content)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, start: datetime, days: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
    )


def _usage(*, signing: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signing,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not signing,
        crl_sign=not signing,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def _public_bytes(key: object) -> bytes:
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(encoding, form)  # type: ignore[attr-defined,no-any-return]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; make it with `hush certs init`") from None


def _certificate(path: Path) -> x509.Certificate:
    try:
        return parse(_read(path))
    except ValueError:
        raise ConfigError(f"{path} holds no certificate") from None
