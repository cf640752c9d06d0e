"""Fixed-point emulation: exact ring arithmetic in one process, with a record of every value out of range."""

from hush.protocols.fixed.protocol import Fixed
from hush.protocols.fixed.violations import Violation

__all__ = ["Fixed", "Violation"]
