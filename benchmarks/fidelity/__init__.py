"""How near secure inference comes to plaintext: the data, networks and measurements of `benchmarks/accuracy.py`."""
