"""Certificates and configuration files: what is written can be used, what is wrong is named."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from parties_harness import write_trio

from hush.mpc.errors import ConfigError
from hush.parties import certs, config
from hush.parties.certs import Role


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_trio(tmp_path / "certs")


def identity(folder: Path, stem: str, kind: str, name: str | None = None) -> certs.Identity:
    return certs.load(folder / "ca.pem", folder / f"{stem}.pem", folder / f"{stem}.key", kind, name)


def test_every_written_identity_loads_in_its_role(folder: Path) -> None:
    for role in certs.DEFAULT_ROLES:
        assert identity(folder, role.filename, role.kind, role.name).role == role


def test_keys_are_for_their_owner_only(folder: Path) -> None:
    keys = sorted(folder.glob("*.key"))
    assert len(keys) == 6 + 3  # of certificates, and of storage
    assert {stat.S_IMODE(k.stat().st_mode) for k in keys} == {0o600}


def test_a_throwaway_authority_leaves_no_key(tmp_path: Path) -> None:
    certs.create(tmp_path, days=1, keep_authority=False)
    assert not (tmp_path / "ca.key").exists()


def test_more_clients_can_be_added(folder: Path) -> None:
    certs.add(folder, Role("client", "alice"))
    assert identity(folder, "client-alice", "client").role.uri == "hush://client/alice"
    with pytest.raises(ConfigError, match="no role"):
        certs.add(folder, Role("admin", "eve"))


def test_an_authority_is_not_overwritten(folder: Path) -> None:
    with pytest.raises(ConfigError, match="holds certificates already"):
        certs.create(folder)


def test_wrong_role_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"speaks for hush://client/client, but hush://party/0 is needed"):
        identity(folder, "client", "party", "0")
    with pytest.raises(ConfigError, match=r"hush://party/1"):
        identity(folder, "party-1", "party", "0")


def test_another_authority_is_refused(folder: Path, tmp_path: Path) -> None:
    other = write_trio(tmp_path / "other")
    with pytest.raises(ConfigError, match="was not issued by"):
        certs.load(other / "ca.pem", folder / "client.pem", folder / "client.key", "client")


def test_a_key_of_another_certificate_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="is not the key of"):
        certs.load(folder / "ca.pem", folder / "client.pem", folder / "provider.key", "client")


def test_an_expired_certificate_names_file_and_date(folder: Path) -> None:
    start = datetime.now(UTC) - timedelta(days=3)
    pem, key = certs.Authority.load(folder).issue(Role("client", "client"), 1, start)
    certs.write_public(folder / "client.pem", pem)
    certs.write_secret(folder / "client.key", key)
    day = (start + timedelta(days=1)).strftime("%Y-%m-%d")
    with pytest.raises(ConfigError, match=rf"client\.pem expired on {day}"):
        identity(folder, "client", "client")


def test_missing_and_broken_files_are_named(folder: Path) -> None:
    (folder / "client.pem").write_text("nonsense")
    with pytest.raises(ConfigError, match=r"client\.pem holds no certificate"):
        identity(folder, "client", "client")
    (folder / "client.pem").unlink()
    with pytest.raises(ConfigError, match=r"cannot read .*client\.pem"):
        identity(folder, "client", "client")


def test_the_repr_of_an_identity_shows_no_key(folder: Path) -> None:
    assert repr(identity(folder, "party-0", "party")) == "Identity(hush://party/0)"


def test_example_configurations_serve_as_they_are(folder: Path) -> None:
    parties = [config.load_party(folder / f"party{i}.toml") for i in range(3)]
    client = config.load_client(folder / "client.toml")
    assert [p.identity().role.party for p in parties if p.identity()] == [0, 1, 2]
    assert client.identity("client") is not None
    assert len({c.roster() for c in (*parties, client)}) == 1
    assert parties[0].data_dir == folder / "party0-data"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("index = 0", "index = 3", "`index`"),
        ("index = 0", "indx = 0", "`indx`"),
        ("index = 0", "index = ", "is not TOML"),
        ("127.0.0.1:", "127.0.0.1;", "HOST:PORT"),
        ("[tls]", "insecure = true\n[tls]", "exclude each other"),
    ],
)
def test_a_fault_in_a_configuration_is_named(folder: Path, old: str, new: str, message: str) -> None:
    path = folder / "party0.toml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ConfigError, match=message) as caught:
        config.load_party(path)
    assert "party0.toml" in str(caught.value)


def test_plain_text_must_be_asked_for(folder: Path) -> None:
    path = folder / "client.toml"
    path.write_text(path.read_text().split("[tls]")[0])
    with pytest.raises(ConfigError, match="insecure = true"):
        config.load_client(path)
    path.write_text("insecure = true\n" + path.read_text())
    assert config.load_client(path).identity("client") is None


def test_rosters_differ_when_addresses_or_order_do(folder: Path) -> None:
    one = config.load_client(folder / "client.toml")
    swapped = one.model_copy(update={"parties": (one.parties[1], one.parties[0], one.parties[2])})
    assert one.roster() != swapped.roster()
