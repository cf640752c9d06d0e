"""Passes: each takes a draft, rewrites its graph in place, and returns one line on what it did."""
