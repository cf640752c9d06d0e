"""Protocol buffers: the .proto files and what protoc makes of them."""

if __name__ != "hush.proto":
    raise ImportError("import hush.proto, not proto")
