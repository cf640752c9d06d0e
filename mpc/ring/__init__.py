"""Rings Z_2^k and their kernels: `Ring` is the algebra, `kernels` the interchangeable implementations."""

from hush.mpc.ring.ring import RING32, RING64, Ring

__all__ = ["RING32", "RING64", "Ring"]
