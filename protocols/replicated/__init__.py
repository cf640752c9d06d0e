"""Replicated secret sharing among three parties, honest majority, semi-honest.

x = x_0 + x_1 + x_2 in Z_2^k; party i holds (x_i, x_{i+1}), `Shared.parts` in that order. Boolean shares likewise, by XOR.
"""
