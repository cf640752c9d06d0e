"""Compiles every GPU kernel to machine code for a compute capability (80, 90), which needs no GPU; prints how many."""

from __future__ import annotations

import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from hush.mpc.ring.cuda import chacha, limbs, planes, steps

P64, P32, P8 = "*i64", "*i32", "*i8"
TILE = dict(zip(("BM", "BN", "BK"), limbs.INT8_TILE, strict=False))
BLOCK = {"BLOCK": 1024}
KERNELS = [
    (limbs._split, {"x": P64, "out": P8, "numel": "i64"}, {"LIMBS": 8} | BLOCK),
    (
        limbs._product,
        {"a": P8, "b": P8, "c": P64} | dict.fromkeys(("M", "N", "K", "a_limb", "b_limb", "a_item", "b_item"), "i32"),
        {"LIMBS": 8} | TILE,
    ),
    (
        planes._gather,
        {"x": P64, "planes": P64} | dict.fromkeys(("numel", "words", "count", "shift"), "i32"),
        {"WORDS": 16},
    ),
    (planes._scatter, {"planes": P64, "x": P64} | dict.fromkeys(("numel", "step", "count"), "i32"), {"WORDS": 16}),
    (planes._spread, {"planes": P64, "x": P32, "numel": "i32", "step": "i32"}, {"WORDS": 16}),
    (chacha._stream, {"state": P32, "out": P32, "blocks": "i32"}, {"LANES": 128}),
    (steps._cross_mul, dict.fromkeys(("x0", "x1", "y0", "y1", "out"), P64) | {"n": "i32"}, {"BITS": 64} | BLOCK),
    (
        steps._answer,
        dict.fromkeys(("mine", "got", "low", "mask", "base", "reply"), P64) | {"n": "i32"},
        {"K": 64, "OUT": 64, "SHIFT": 18, "OPENED": True} | BLOCK,
    ),
    (
        steps._split_mask,
        dict.fromkeys(("r0", "r1", "z", "drawn", "low", "mask0", "mask1", "x2", "rest", "whole"), P64) | {"n": "i32"},
        {"K": 64, "OUT": 64, "SHIFT": 18, "TWO": True} | BLOCK,
    ),
    (
        steps._narrow,
        {"z": P64, "plus": P64, "minus": P64, "out": P32, "n": "i32", "constant": "i64"},
        {"K": 64, "OUT": 32, "SHIFT": 32, "MASKED": True} | BLOCK,
    ),
]


def main(capability: int) -> None:
    """Compile them all."""
    target = GPUTarget("cuda", capability, 32)
    for kernel, signature, constants in KERNELS:
        names = [p.name for p in kernel.params]
        typed = {n: signature.get(n, "constexpr") for n in names}
        source = ASTSource(kernel, typed, constexprs=constants)
        warps = limbs.INT8_TILE[3] if kernel is limbs._product else 4
        made = triton.compile(source, target=target, options={"num_warps": warps})
        used = made.metadata
        print(f"{kernel.fn.__name__}: {len(made.asm['cubin'])} bytes, {used.shared} bytes shared")
    print(f"{len(KERNELS)} kernels")


if __name__ == "__main__":
    main(int(sys.argv[1]))
