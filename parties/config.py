"""Configuration files (TOML) of parties and of those who use them, checked when they are read."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from hush.mpc.errors import ConfigError
from hush.mpc.ring import backends
from hush.parties import certs, device_memory, vault

MIB = 1 << 20


def _address(text: str) -> str:
    if text.startswith("unix:"):
        if len(text.removeprefix("unix:").encode()) not in range(1, 108):
            raise ValueError("a unix socket's path has 1 to 107 bytes")
        return text
    host, colon, port = text.rpartition(":")
    if not host or not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("an address is HOST:PORT or unix:/PATH")
    return text


Address = Annotated[str, AfterValidator(_address)]
Memory = Annotated[int | str, AfterValidator(device_memory.checked)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsFiles(_Strict):
    """Certificate files (PEM); relative paths are relative to the configuration file."""

    authority: Path
    certificate: Path
    key: Path


class Limits(_Strict):
    """What a party grants before it refuses with RESOURCE_EXHAUSTED."""

    max_message_mib: int = Field(default=8, ge=2, le=1024)  # one gRPC message; tensors travel in smaller chunks
    max_program_mib: int = Field(default=256, ge=1)  # a serialised program
    max_memory_mib: int = Field(default=65536, ge=1)  # resident memory, above which nothing new is accepted
    max_sessions: int = Field(default=8, ge=1, le=256)
    max_models: int = Field(default=64, ge=1)
    deadline_s: float = Field(default=60.0, gt=0)  # longest wait for a neighbour, and for a client in mid-message
    idle_s: float = Field(default=900.0, gt=0)  # a session without a request is closed after this
    partial_h: float = Field(default=72.0, ge=0)  # hours for which an interrupted deployment may go on


class _Networked(_Strict):
    parties: tuple[Address, Address, Address]
    tls: TlsFiles | None = None
    insecure: bool = False

    @model_validator(mode="after")
    def _secured(self) -> Self:
        if self.tls is None and not self.insecure:
            raise ValueError("[tls] is missing; plain-text links must be asked for with `insecure = true`")
        if self.tls is not None and self.insecure:
            raise ValueError("`insecure = true` and [tls] exclude each other")
        return self

    def _identity(self, kind: str, name: str | None = None) -> certs.Identity | None:
        if self.tls is None:
            return None
        return certs.load(self.tls.authority, self.tls.certificate, self.tls.key, kind, name)

    def roster(self) -> bytes:
        """SHA-256 over who takes part: the three addresses in order, and the authority that vouches for them."""
        digest = hashlib.sha256(b"hush roster 1")
        authority = b"" if self.tls is None else certs.fingerprint(self.tls.authority.read_bytes())
        for item in (authority, *(a.encode() for a in self.parties)):
            digest.update(len(item).to_bytes(4, "big") + item)
        return digest.digest()


class PartyConfig(_Networked):
    """One party's server."""

    index: int = Field(ge=0, le=2)
    listen: Address | None = None  # default: its own address in `parties`
    data_dir: Path | None = None  # deployed shares are kept here; without it they live in memory only
    storage_key: Path | None = None  # what is kept there is encrypted with this key
    limits: Limits = Limits()
    threads: int | None = Field(default=None, ge=1)  # default: all cores
    backend: str | None = None  # kernels in main memory: default the best there is
    device: str = Field(default="cpu", pattern=r"^(cpu|auto|cuda(:\d+)?)$")  # auto: a GPU if there is one, else the CPU
    device_memory: Memory | None = None  # of a GPU: bytes, "40 GiB" or "1/3"; default: what is free at the start
    net: str = Field(default="none", pattern="^(none|lan|wan)$")
    profile: bool = False  # whether clients may ask when each op computed, sent and waited
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        if self.data_dir is not None and self.storage_key is None:
            how = "make one with `hush certs storage-key FILE` and name it as `storage_key`"
            raise ValueError(f"`data_dir` needs a storage key, with which what is kept there is encrypted: {how}")
        return self

    def storage(self) -> bytes | None:
        """The key that its data directory is encrypted with, None without one. ConfigError if it cannot be read."""
        return None if self.data_dir is None or self.storage_key is None else vault.load_key(self.storage_key)

    @property
    def kernels(self) -> str | None:
        """The backend that serves: a GPU's if one is asked for, or is there where either would do."""
        if self.device == "auto":
            return self.backend if backends.available()["cuda"].startswith("absent") else "cuda"
        return self.backend if self.device == "cpu" else self.device

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.listen or self.parties[self.index]

    def identity(self) -> certs.Identity | None:
        """Its certificate, checked; None if insecure."""
        return self._identity("party", str(self.index))


class ClientConfig(_Networked):
    """Somebody who uses the parties: a client that asks, or a provider that deploys."""

    deadline_s: float = Field(default=60.0, gt=0)  # longest wait for a party to take up a call
    answer_s: float = Field(default=3600.0, gt=0)  # longest wait for a layer; the parties watch each other meanwhile
    max_message_mib: int = Field(default=8, ge=2, le=1024)

    def identity(self, kind: str) -> certs.Identity | None:
        """Its certificate as a `client` or a `provider`, checked; None if insecure."""
        return self._identity(kind)


C = TypeVar("C", bound=_Networked)


def load_party(path: Path) -> PartyConfig:
    """Read a party's file. ConfigError names file, key and fault."""
    return _load(path, PartyConfig)


def load_client(path: Path) -> ClientConfig:
    """Read a client's or provider's file. ConfigError names file, key and fault."""
    return _load(path, ClientConfig)


def replaced(config: PartyConfig, **options: object) -> PartyConfig:
    """A party's configuration with options of a command line, those that were given. ConfigError if one is no good."""
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return PartyConfig.model_validate(config.model_dump() | given) if given else config
    except ValidationError as error:
        raise ConfigError("; ".join(_fault(e["loc"], e["msg"]) for e in error.errors())) from None


Config = ClientConfig | str | Path


def as_client(config: Config) -> ClientConfig:
    """A client's or provider's configuration, read if it is the path of a file."""
    return config if isinstance(config, ClientConfig) else load_client(Path(config))


def _load(path: Path, model: type[C]) -> C:
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    _resolve(values, path.parent)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(_fault(e["loc"], e["msg"]) for e in error.errors())
        raise ConfigError(f"{path}: {faults}") from None


def _fault(where: Sequence[int | str], message: str) -> str:
    key = ".".join(str(part) for part in where)
    return f"`{key}`: {message}" if key else message.removeprefix("Value error, ")


def _resolve(values: dict[str, object], folder: Path) -> None:
    """Make relative paths relative to the file they stand in."""
    tls = values.get("tls")
    for table, keys in ((values, ("data_dir", "storage_key")), (tls, ("authority", "certificate", "key"))):
        if isinstance(table, dict):
            for key in keys:
                if isinstance(table.get(key), str):
                    table[key] = str(folder / table[key])


def write_examples(
    directory: Path, parties: Sequence[str] = ("127.0.0.1:7800", "127.0.0.1:7801", "127.0.0.1:7802")
) -> list[Path]:
    """Ready-to-use files beside the certificates of `certs.create`: party0.toml .. party2.toml, client.toml,
    provider.toml; and the parties' storage keys, party0-storage.key .. (mode 0600), unless they are there. Returns the
    configurations' paths."""
    for address in parties:
        check_address(address)
    for key in (directory / f"party{i}-storage.key" for i in range(3)):
        if not key.exists():
            vault.create_key(key)
    files = {f"party{i}.toml": _example(parties, f"party-{i}", _PARTY.format(index=i)) for i in range(3)}
    files |= {f"{kind}.toml": _example(parties, kind, _USER) for kind in ("client", "provider")}
    for name, text in files.items():
        (directory / name).write_text(text)
    return [directory / name for name in files]


def check_address(address: str) -> None:
    """ConfigError unless an address is HOST:PORT or unix:/PATH."""
    try:
        _address(address)
    except ValueError as error:
        raise ConfigError(f"{address!r}: {error}") from None


_PARTY = """index = {index}
# listen = "0.0.0.0:7800"    # where it listens, if not at its own address below
data_dir = "party{index}-data"    # deployed weight shares, encrypted; leave out to keep them in memory only
storage_key = "party{index}-storage.key"    # of that encryption; without it what is stored cannot be read
# threads = 4                # default: all cores
# device = "cuda:0"          # compute on a GPU; "auto": on one if there is one
# device_memory = "40 GiB"   # of that GPU; default: what is free at the start
"""
_USER = "deadline_s = 60    # longest wait for a party to take up a call\n"
_EXAMPLE = """{own}parties = [{parties}]    # the same three, in the same order, in every file

[tls]
authority = "ca.pem"
certificate = "{stem}.pem"
key = "{stem}.key"
"""


def _example(parties: Sequence[str], stem: str, own: str) -> str:
    listed = ", ".join(f'"{p}"' for p in parties)
    return _EXAMPLE.format(own=own, parties=listed, stem=stem)
