"""Ring kernels for NVIDIA GPUs, in Triton and torch operations, bit for bit those of the reference.

Imported only where a party asks for a GPU (`backends.get("cuda")`): nothing else of Hush imports Triton. Without a GPU
the same kernels run in Triton's interpreter, slowly, where `TRITON_INTERPRET=1` is set before they are imported.
"""
