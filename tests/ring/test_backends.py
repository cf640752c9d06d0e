"""The choice of a backend."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hush.mpc.errors import ConfigError
from hush.mpc.ring import backends


def test_best_is_cpu_where_it_imports() -> None:
    absent = backends.available()["cpu"].startswith("absent")
    assert backends.get().name == ("torch" if absent else "cpu")


def test_torch_is_always_there() -> None:
    assert backends.get("torch").name == "torch"


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no kernel backend 'tpu'.*torch"):
        backends.get("tpu")


def test_missing_native_module_warns_once_and_serves() -> None:
    script = """
import sys, warnings
sys.modules["hush.mpc.ring._cpu"] = None  # an import of it now fails
from hush.mpc.errors import ConfigError
from hush.mpc.ring import backends
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    assert [backends.get().name for _ in range(3)] == ["torch"] * 3
assert [w.category.__name__ for w in seen] == ["HushWarning"], seen
assert "absent" in str(seen[0].message)
assert backends.available()["cpu"].startswith("absent")
try:
    backends.get("cpu")
except ConfigError as error:
    assert "compiler" in str(error)
else:
    raise SystemExit("get('cpu') must fail")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
