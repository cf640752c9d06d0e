"""What is true of any protocol: rings, fixed point, primitives, functions, the compiler."""

if __name__ != "hush.mpc":
    raise ImportError("import hush.mpc, not mpc")
