"""Encrypted files: what is written comes back, and nothing that was moved, changed, cut or another key's does."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from hush.mpc.errors import ConfigError
from hush.parties import vault
from hush.parties.config import PartyConfig, load_party
from hush.parties.vault import Reader, Seal, VaultError, Writer

KEY, ID = bytes(range(32)), b"0123456789abcdef"
SECTIONS = [b"announced", b"", os.urandom(3), os.urandom((1 << 20) + 1), os.urandom(2 << 20), b"end"]


def write(path: Path, sections: Sequence[bytes] = SECTIONS, party: int = 1, deployment: bytes = ID) -> bytes:
    writer = Writer(path, Seal(KEY, deployment, party))
    for section in sections:
        writer.add(section)
    writer.sync()
    writer.close()
    return path.read_bytes()


def place(section: int, sections: Sequence[bytes] = SECTIONS) -> slice:
    """Where a section is in the file."""
    start = len(Seal(KEY, ID, 1).head) + sum(vault.stored_size(len(s)) for s in sections[:section])
    return slice(start, start + vault.stored_size(len(sections[section])))


def test_sections_come_back_in_any_order(tmp_path: Path) -> None:
    content = write(tmp_path / "f")
    with Reader(tmp_path / "f", KEY, 1) as file:
        assert file.sizes == [len(s) for s in SECTIONS]
        for index in (4, 0, 3, 1, 5, 2):
            assert bytes(file.read(index)) == SECTIONS[index]
        file.verify()
        assert file.complete
        assert file.deployment == ID
    assert not any(s in content for s in SECTIONS if len(s) > 8)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600


def test_the_same_sections_are_never_encrypted_alike(tmp_path: Path) -> None:
    """Another salt, and by it another key, each time: not one chunk of the second file is one of the first."""
    one, two = write(tmp_path / "one"), write(tmp_path / "two")
    at = place(4)
    assert one[at] != two[at]
    assert one[at][24:40] != two[at][24:40]


@pytest.mark.parametrize("section", range(len(SECTIONS)))
def test_a_changed_byte_is_found_where_it_is(tmp_path: Path, section: int) -> None:
    content = bytearray(write(tmp_path / "f"))
    content[place(section).stop - 1] ^= 1
    (tmp_path / "f").write_bytes(content)
    with Reader(tmp_path / "f", KEY, 1) as file:
        for index in set(range(len(SECTIONS))) - {section}:
            assert bytes(file.read(index)) == SECTIONS[index]
        with pytest.raises(VaultError, match="damaged"):
            file.read(section)
        with pytest.raises(VaultError, match="damaged"):
            file.verify()


def test_sections_and_chunks_cannot_be_swapped(tmp_path: Path) -> None:
    sections = [b"a" * (2 << 20), b"b" * (2 << 20)]
    content = write(tmp_path / "f", sections)
    first, second = place(0, sections), place(1, sections)
    (tmp_path / "f").write_bytes(content[: first.start] + content[second] + content[first])
    chunk, start = (1 << 20) + 16, first.start + 24
    swapped = content[start + chunk : start + 2 * chunk] + content[start : start + chunk]
    (tmp_path / "g").write_bytes(content[:start] + swapped + content[start + 2 * chunk :])
    for name, bad in (("f", (0, 1)), ("g", (0,))):
        with Reader(tmp_path / name, KEY, 1) as file:
            for index in bad:
                with pytest.raises(VaultError, match="damaged"):
                    file.read(index)


def test_a_section_of_another_file_is_not_taken(tmp_path: Path) -> None:
    ours = write(tmp_path / "f")
    for name, other in (("party", {"party": 2}), ("id", {"deployment": b"x" * 16})):
        theirs = write(tmp_path / name, **other)  # type: ignore[arg-type]
        (tmp_path / "mixed").write_bytes(ours[: place(2).start] + theirs[place(2)] + ours[place(2).stop :])
        with Reader(tmp_path / "mixed", KEY, 1) as file, pytest.raises(VaultError, match="damaged"):
            file.read(2)


@pytest.mark.parametrize("cut", [1, 20, 1 << 20])
def test_a_file_that_was_cut_is_not_complete(tmp_path: Path, cut: int) -> None:
    content = write(tmp_path / "f")
    (tmp_path / "f").write_bytes(content[:-cut])
    with Reader(tmp_path / "f", KEY, 1) as file:
        assert not file.complete
        assert bytes(file.read(0)) == SECTIONS[0]
        with pytest.raises(VaultError, match="cut short"):
            file.verify()


def test_a_file_that_is_cut_while_it_is_open_ends_nothing(tmp_path: Path) -> None:
    """Reading the map beyond the file's end would kill the process."""
    write(tmp_path / "f")
    with Reader(tmp_path / "f", KEY, 1) as file:
        os.truncate(tmp_path / "f", 100)
        with pytest.raises(VaultError, match="cut short"):
            file.read(4)


def test_another_key_party_or_format_is_said(tmp_path: Path) -> None:
    write(tmp_path / "f")
    with pytest.raises(VaultError, match="another storage key"):
        Reader(tmp_path / "f", bytes(32), 1)
    with pytest.raises(VaultError, match="another party"):
        Reader(tmp_path / "f", KEY, 2)
    for content, complaint in ((b"hush deployment 1\nxyz", "earlier version"), (b"", "no stored deployment")):
        (tmp_path / "g").write_bytes(content)
        with pytest.raises(VaultError, match=complaint):
            Reader(tmp_path / "g", KEY, 1)


def test_writing_goes_on_after_whole_sections(tmp_path: Path) -> None:
    content = write(tmp_path / "f")
    (tmp_path / "f").write_bytes(content[: place(3).stop - 5])
    with Reader(tmp_path / "f", KEY, 1) as file:
        held, end = len(file.sizes), file.end(len(file.sizes))
    assert held == 3
    writer = Writer(tmp_path / "f", Seal(KEY, ID, 1), sections=held, end=end)
    for section in SECTIONS[held:]:
        writer.add(section)
    writer.close()
    with Reader(tmp_path / "f", KEY, 1) as file:
        assert [bytes(file.read(i)) for i in range(len(SECTIONS))] == SECTIONS
        assert file.complete
    assert (tmp_path / "f").read_bytes()[place(3)][:16] != content[place(3)][:16]  # written again under another key


def test_storage_keys(tmp_path: Path) -> None:
    path = tmp_path / "k"
    vault.create_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(vault.load_key(path)) == 32
    with pytest.raises(ConfigError, match="there already"):
        vault.create_key(path)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        vault.load_key(path)
    path.chmod(0o600)
    for bad in (b"", b"ab" * 31, b"zz" * 32, bytes([255] * 64)):
        path.write_bytes(bad)
        with pytest.raises(ConfigError, match="no storage key"):
            vault.load_key(path)
    with pytest.raises(ConfigError, match="hush certs storage-key"):
        vault.load_key(tmp_path / "absent")


def test_a_data_directory_needs_a_key(tmp_path: Path) -> None:
    addresses = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]
    path = tmp_path / "party.toml"
    path.write_text(f"index = 0\nparties = {addresses}\ninsecure = true\ndata_dir = 'd'\n")
    with pytest.raises(ConfigError, match="hush certs storage-key FILE"):
        load_party(path)
    path.write_text(path.read_text() + "storage_key = 'k'\n")
    config = load_party(path)
    assert config.storage_key == tmp_path / "k"
    vault.create_key(tmp_path / "k")
    assert config.storage() == vault.load_key(tmp_path / "k")
    assert PartyConfig(index=0, parties=tuple(addresses), insecure=True).storage() is None
