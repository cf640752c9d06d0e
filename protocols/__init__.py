"""Protocols: interchangeable meanings of the primitives in `hush.mpc.protocol`."""

if __name__ != "hush.protocols":
    raise ImportError("import hush.protocols, not protocols")
