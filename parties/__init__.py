"""Parties: servers, transport, TLS, configuration, client SDK, launcher, command line."""

if __name__ != "hush.parties":
    raise ImportError("import hush.parties, not parties")
