"""Settings of the whole suite."""

from __future__ import annotations

import warnings

from hush.mpc.errors import HushWarning
from hush.mpc.ring import backends

# Warnings are errors in tests. Without the C++ kernels the suite runs on the reference backend, whose one warning is
# given here; whether the kernels MUST be there is tests/packaging's question (HUSH_REQUIRE_NATIVE).
with warnings.catch_warnings():
    warnings.simplefilter("ignore", HushWarning)
    backends.get()
