"""Nonlinear functions on shares, written only in the primitives of `hush.mpc.protocol`."""
