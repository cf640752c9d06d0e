"""The float reference: the primitives' algebra without rounding and without wrap-around, in one process."""

from hush.protocols.plain.protocol import Plain

__all__ = ["Plain"]
