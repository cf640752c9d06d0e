"""What is built and installed: the sdist, the wheel from it, and both without a compiler."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from hush.mpc.ring import backends

ROOT = Path(__file__).parents[2]
FOLDERS = {"src/hush": "hush", **{name: f"hush/{name}" for name in ("mpc", "protocols", "models", "parties", "proto")}}
SOURCES = (".cpp", ".h", ".inc", ".c", ".cc", ".hpp", ".o")
USE_KERNELS = """
import warnings
import torch
import hush.mpc.ring
from hush.mpc.ring import RING64, backends
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    kernels = backends.get()
x = torch.arange(12).reshape(3, 4)
assert torch.equal(kernels.matmul(x, x.mT, RING64), x @ x.mT)
print(kernels.name, len([w for w in seen if w.category.__name__ == "HushWarning"]), hush.mpc.ring.__file__)
"""


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without what would decide the outcome by itself."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "HUSH_REQUIRE_NATIVE", "CXX", "CC")}
    return kept | changes


def build(what: str, source: Path, to: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "build", f"--{what}", "--no-isolation", "--outdir", str(to), str(source)]
    return subprocess.run(command, env=environment(**env), cwd=to, capture_output=True, text=True, timeout=280)


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def listed(*folders: str) -> set[Path]:
    """The files below folders of this checkout that git knows or would add; links are not files."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return {Path(name) for name in names if (ROOT / name).is_file() and not (ROOT / name).is_symlink()}


def package_files() -> set[str]:
    """Every file of the package in this checkout, as named in a wheel."""
    inside = {f"{name}/{f.relative_to(folder)}" for folder, name in FOLDERS.items() for f in listed(folder)}
    return {name for name in inside if not name.startswith("hush/mpc/ring/native/")}


def unpack(sdist: Path, to: Path) -> Path:
    """The sdist's tree: a fresh one for every build, since CMake remembers its compiler."""
    with tarfile.open(sdist) as archive:
        archive.extractall(to, filter="data")
    return only(to, "hush-*/")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    done = build("sdist", ROOT, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return only(folder, "*.tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the sdist gives."""
    folder = tmp_path_factory.mktemp("wheel")
    done = build("wheel", unpack(sdist, folder), folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return only(folder, "*.whl")


@pytest.fixture(scope="module")
def pure_wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the sdist gives on a machine with a broken compiler."""
    folder = tmp_path_factory.mktemp("pure")
    done = build("wheel", unpack(sdist, folder), folder, CXX="/bin/false")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the torch reference backend serves" in done.stdout + done.stderr
    return only(folder, "*.whl")


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def run_installed(wheel: Path, folder: Path, script: str) -> str:
    """What a script prints in a fresh environment with the wheel and this environment's dependencies."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    site = only(folder, "lib/python*/site-packages")
    # a path here is searched, but its own .pth files (an editable install of hush) are not read
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, env=environment(), timeout=120)
    run = [python, "-c", script]
    done = subprocess.run(run, env=environment(), cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert str(site) in done.stdout
    return done.stdout


def test_the_native_kernels_are_there_where_they_are_required() -> None:
    """Never skips: with HUSH_REQUIRE_NATIVE=1 an installation without the C++ kernels is a failure."""
    required = os.environ.get("HUSH_REQUIRE_NATIVE", "").lower() in ("1", "true", "yes", "on")
    about = backends.available()["cpu"]
    assert not required or not about.startswith("absent"), about
    assert not required or backends.get().name == "cpu"


def test_sdist_holds_each_file_once(sdist: Path, tmp_path: Path) -> None:
    tree = unpack(sdist, tmp_path)
    inside = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}
    assert {"pyproject.toml", "README.md", "CMakeLists.txt", "mpc/ring/native/kernels.inc"} <= inside
    assert {name for name in inside if name.startswith("src/")} == {str(path) for path in listed("src")}
    assert not [name for name in inside if name.endswith((".so", ".pyc", ".o"))]


def test_wheel_has_one_top_level_name(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in names(wheel)}
    (info,) = tops - {"hush"}
    assert info.endswith(".dist-info")


def test_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    inside = {name for name in names(wheel) if name.startswith("hush/")}
    expected = package_files()
    assert {"hush/py.typed", "hush/mpc/ring/_cpu.pyi", "hush/mpc/protocol.py", "hush/parties/__init__.py"} <= expected
    native = {name for name in inside if name.startswith("hush/mpc/ring/_cpu.") and name.endswith((".so", ".pyd"))}
    assert len(native) == 1
    assert inside - native == expected


def test_wheel_holds_no_cpp(wheel: Path) -> None:
    assert not [name for name in names(wheel) if name.endswith(SOURCES) or "/native/" in name]


def test_wheel_installs_with_its_kernels_and_command(wheel: Path, tmp_path: Path) -> None:
    assert run_installed(wheel, tmp_path / "env", USE_KERNELS).split()[:2] == ["cpu", "0"]
    assert (tmp_path / "env" / "bin" / "hush").exists()


def test_without_a_compiler_the_wheel_is_pure_and_says_so(pure_wheel: Path, tmp_path: Path) -> None:
    assert not [name for name in names(pure_wheel) if "_cpu." in name and not name.endswith(".pyi")]
    assert {name for name in names(pure_wheel) if name.startswith("hush/")} == package_files()
    assert run_installed(pure_wheel, tmp_path / "env", USE_KERNELS).split()[:2] == ["torch", "1"]


def test_required_kernels_without_a_compiler_fail_the_install(sdist: Path, tmp_path: Path) -> None:
    done = build("wheel", unpack(sdist, tmp_path), tmp_path, CXX="/bin/false", HUSH_REQUIRE_NATIVE="1")
    assert done.returncode != 0
    assert not list(tmp_path.glob("*.whl"))


def test_instruction_sets_share_no_code() -> None:
    """kernels.inc must not give the linker a function to merge: it might keep the copy that this CPU cannot run."""
    native = ROOT / "mpc" / "ring" / "native"
    for source in [*native.glob("*.inc"), native / "kernels.h", *native.glob("avx*.cpp"), native / "portable.cpp"]:
        included = [line.split()[1] for line in source.read_text().splitlines() if line.startswith("#include")]
        allowed = {"<cstdint>", "<cstring>", "<immintrin.h>"}
        assert all(name in allowed or name.startswith('"') for name in included), source.name
