"""Networks: the registry, their checkpoints, one file per network."""

if __name__ != "hush.models":
    raise ImportError("import hush.models, not models")
