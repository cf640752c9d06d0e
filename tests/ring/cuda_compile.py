"""Compiles every GPU kernel to machine code for a compute capability (80, 90), which needs no GPU.

    python tests/ring/cuda_compile.py 90 [tiles]

Each as it is launched by default; with `tiles`, products in all tiles worth trying instead. Prints what each takes of a
GPU: registers and spilled bytes of a thread, spills within the loop that multiplies, shared memory; then how many.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from hush.mpc.ring.cuda import chacha, choices, convolve, limbs, planes, residues, rows, steps, tiles
from hush.mpc.ring.cuda.tiles import Tile

MODULES = (chacha, choices, convolve, limbs, planes, residues, rows, steps)
P64, P32, P8, U8 = "*i64", "*i32", "*i8", "*u8"
BLOCK = {"BLOCK": 1024}
SHARED = 99 << 10  # of a program by default: what compute capabilities 8.6 and 8.9 have, others more
OPERANDS = "a_item a_row b_item b_depth b_column"


@dataclass(frozen=True)
class Case:
    """A kernel, the types of what it takes, its constants, its tile."""

    kernel: Any
    types: dict[str, str]
    constants: dict[str, Any]
    tile: Tile | None = None
    aligned: bool = field(default=False)
    """Whether sizes and strides are multiples of 16, which a launch finds out."""


def typed(kind: str, names: str) -> dict[str, str]:
    """All of one type."""
    return dict.fromkeys(names.split(), kind)


# ---------------------------------------------------------------------- products
def by_limbs(tile: Tile, out: str = P64, count: int = 8, one: str = "b_depth") -> Case:
    """`one`: the stride that is 1, a constant then."""
    sizes = typed("i32", f"M N K a_limb b_limb {OPERANDS}".replace(one, ""))
    return Case(limbs._product, {"a": P8, "b": P8, "c": out} | sizes, {"LIMBS": count, one: 1}, tile, True)


def stacked(tile: Tile, out: str = P64, count: int = 8) -> Case:
    sizes = typed("i32", f"M N K a_limb b_limb {OPERANDS}".replace("b_depth", ""))
    constants = {"LIMBS": count, "HIGH": triton.next_power_of_2(count), "b_depth": 1}
    return Case(limbs._stacked, {"a": P8, "b": P8, "c": out} | sizes, constants, tile, True)


def by_residues(tile: Tile, one: str = "b_depth") -> Case:
    sizes = typed("i32", f"items M N K a_residue b_residue {OPERANDS}".replace(one, ""))
    constants = {"MODULI": residues.MODULI, "COUNT": residues.count(64), one: 1}
    return Case(residues._product, {"a": P8, "b": P8, "c": U8} | sizes, constants, tile, True)


def convolution(tile: Tile, out: str = P64, *, flat: bool = False, aligned: bool = True, even: bool = True) -> Case:
    numbers = "D H W OD OH OW KH KW SZ SY SX PZ PY PX GZ GY GX"
    sizes = typed("i32", f"PIXELS ROWS C PLACES GROUPS x_limb w_limb {numbers}")
    two = dict.fromkeys(("D", "OD", "SZ", "GZ"), 1) | {"PZ": 0} if flat else {}  # of two dimensions
    kept = {name: kind for name, kind in sizes.items() if name not in two}
    count = 8 if out == P64 else 4
    constants = two | {"LIMBS": count, "MOST": (limbs._DEPTH - 1) // count // tile.depth, "ALIGNED": aligned}
    return Case(convolve._convolve, {"x": P8, "w": P8, "out": out} | kept, constants, tile, even)


def products() -> Iterator[Case]:
    """In the tiles that they take by default, second operands by columns, and by rows as some may come."""
    for tile in (tiles.FEW, tiles.SMALL, tiles.MIDDLE, limbs.LARGE):
        yield by_limbs(tile)
    yield by_limbs(limbs.LARGE, P32, 4)
    yield by_limbs(limbs.LARGE, one="b_column")
    yield from map(stacked, limbs.STACKED.values())
    yield stacked(limbs.STACKED[128], P32, 4)
    yield stacked(limbs.STACKED[16], P64, 5)
    for tile in (tiles.FEWEST, tiles.FEW, tiles.SMALL, tiles.MIDDLE, residues.LARGE):
        yield by_residues(tile)
    yield by_residues(residues.LARGE, "b_column")
    yield convolution(limbs.LARGE)
    yield convolution(limbs.LARGE, flat=True, aligned=False)
    yield convolution(convolve._UNEVEN, flat=True, even=False)
    yield convolution(convolve._UNEVEN, flat=True, aligned=False, even=False)
    yield convolution(convolve._SMALL, P32)


def few_rows() -> Iterator[Case]:
    """Products of one row and of the most that are few."""
    key = typed("i32", chacha.WORDS)
    for count in (1, rows.FEW):
        constants = {"ROWS": count, "MOST": count, "SPAN": rows._SPAN}
        sizes = typed("i32", "K N x_row")
        across, down = rows._READ
        for one, other, tile in (("y_depth", "y_column", (down, across)), ("y_column", "y_depth", (across, down))):
            shape = constants | {one: 1} | dict(zip(("BK", "BN"), tile, strict=True))
            yield Case(rows._read, typed(P64, "x y out") | sizes | {other: "i32"}, shape)
        made = key | typed(P64, "x out") | sizes | {"place": "i32"}
        blocks, columns = rows._DOWN
        yield Case(rows._down, made | {"y_column": "i32"}, constants | {"BLOCKS": blocks, "BN": columns})
        yield Case(rows._across, made | {"y_depth": "i32"}, constants | {"BLOCKS": rows._ACROSS})


def trials() -> Iterator[Case]:
    """Products in all tiles worth trying."""
    yield from map(by_limbs, limbs.CANDIDATES)
    yield from map(stacked, limbs.STACKED_CANDIDATES)
    yield from map(by_residues, residues.CANDIDATES)


# ---------------------------------------------------------------------- the rest
def others() -> Iterator[Case]:
    """All other kernels."""
    n = {"n": "i32"}
    yield Case(limbs._split, {"x": P64, "out": P8, "numel": "i64"}, {"LIMBS": 8, "BLOCK": limbs._SPLIT})
    basis = {"MODULI": residues.MODULI, "COUNT": residues.count(64), "BLOCK": residues._SPLIT}
    yield Case(residues._split, {"x": P64, "out": P8, "numel": "i32"}, basis | {"BITS": 64}, aligned=True)
    names = "INVERSES", "COFACTORS", "UNITS", "WHOLE"
    remainder = basis | dict(zip(names, residues.remainder(basis["COUNT"]), strict=True))
    for out, more in ((P64, False), (P64, True), (P32, True)):
        constants = remainder | {"FRACTION": residues._FRACTION, "MORE": more}
        yield Case(residues._remainder, {"sums": U8, "out": out, "numel": "i32"}, constants, aligned=True)
    direct = convolution(convolve._SMALL).types
    sizes = {
        name: kind for name, kind in direct.items() if kind == "i32" and name not in ("PIXELS", "x_limb", "w_limb")
    }
    constants = {"TWO": True, "BLOCK": convolve._BLOCK}
    yield Case(convolve._direct, typed(P64, "x0 x1 w0 w1 out") | n | sizes, constants)
    yield Case(planes._gather, typed(P64, "x planes") | typed("i32", "numel words count shift"), {"WORDS": 16})
    yield Case(planes._scatter, typed(P64, "planes x") | typed("i32", "numel step count"), {"WORDS": 16})
    yield Case(planes._spread, {"planes": P64, "x": P32} | typed("i32", "numel step"), {"WORDS": 16})
    words = typed("i32", "k0 k1 k2 k3 k4 k5 k6 k7 n0 n1 n2 blocks")
    yield Case(chacha._stream, words | {"out": P32}, {"LANES": 128})
    yield Case(steps._cross_mul, typed(P64, "x0 x1 y0 y1 out") | n, {"BITS": 64} | BLOCK)
    widths = {"K": 64, "OUT": 64, "SHIFT": 18} | BLOCK
    yield Case(steps._answer, typed(P64, "mine got low mask base reply") | n, {"OPENED": True} | widths)
    yield Case(steps._correct, typed(P64, "base other") | n, {"OUT": 64, "HIGH": 45} | BLOCK)
    split = typed(P64, "r0 r1 z drawn low mask0 mask1 x2 rest whole")
    yield Case(steps._split_mask, split | n, {"TWO": True} | widths)
    narrow = typed(P64, "z plus minus") | {"out": P32, "constant": "i64"}
    yield Case(steps._narrow, narrow | n, {"K": 64, "OUT": 32, "SHIFT": 32, "MASKED": True} | BLOCK)
    blend = typed(P64, "x0 x1 x2 x3 out") | typed("i64", "f0 f1 f2 f3 constant")
    yield Case(choices._blend, blend | n, {"COUNT": 4, "BITS": 64} | BLOCK)
    yield Case(choices._deal_choice, typed(P64, "b0 b1 x0 x1 draw0 draw1 bit chosen") | n, {"BITS": 45} | BLOCK)
    chosen = {"c": P64} | typed(P32, "known0 known1 other a d total out")
    yield Case(choices._choose, chosen | n, {"BITS": 32, "TWO": True} | BLOCK)


# ---------------------------------------------------------------------- compiling
def compiled(case: Case, capability: int) -> Any:
    """By Triton's own assembler."""
    tile = case.tile
    constants = case.constants | (dict(zip(("BM", "BN", "BK"), tile.sizes, strict=True)) if tile else {})
    order = [p.name for p in case.kernel.params]
    types = {name: case.types.get(name, "constexpr") for name in order}
    whole = {(order.index(name),): [["tt.divisibility", 16]] for name in case.types} if case.aligned else {}
    source = ASTSource(case.kernel, types, constexprs=constants, attrs=whole)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=tile.options if tile else {})


def usage(made: Any) -> tuple[int, int, int]:
    """(registers, bytes spilled, spilling instructions in innermost loops that multiply) of a thread."""
    registers, stack = map(int, re.findall(r"REG:(\d+) STACK:(\d+)", _told(made, "--dump-resource-usage"))[0])
    found = re.findall(r"/\*([0-9a-f]{4,})\*/ +(.*?);", _told(made, "-sass"))
    lines = [(int(at, 16), text) for at, text in found]
    jumps = [(int(to[1], 16), at) for at, text in lines if (to := re.search(r"BRA\b.*?(0x[0-9a-f]+)", text))]
    loops = [(low, high) for low, high in jumps if low < high]
    inner = [(a, b) for a, b in loops if not any(a <= c and d <= b and (a, b) != (c, d) for c, d in loops)]
    bodies = [[text for at, text in lines if low <= at <= high] for low, high in inner]
    spilled = [sum("LDL" in t or "STL" in t for t in b) for b in bodies if any("MMA" in t for t in b)]
    return registers, stack, sum(spilled)


def _told(made: Any, option: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, option, file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def launched() -> set[str]:
    """Kernels that the modules launch."""
    found = set()
    for module in MODULES:
        assert module.__file__
        with open(module.__file__) as file:
            text = file.read()
        found |= {f"{module.__name__}.{name}" for name in re.findall(r"(?:launch|_run|_cut)\(\s*(_\w+)", text)}
    return found


def main(capability: int, *, trial: bool = False) -> None:
    """Compile them all; those by default fit every GPU, and none of the modules' kernels is left out."""
    cases = list(trials() if trial else (*products(), *few_rows(), *others()))
    for case in cases:
        made = compiled(case, capability)
        registers, stack, inner = usage(made)
        name, shared, tile = case.kernel.fn.__name__, made.metadata.shared, tuple(case.tile or ())
        print(f"{name} {tile}: {registers} registers, {stack} spilled, {inner} in the loop, {shared} shared")
        assert trial or shared <= SHARED, "not every GPU has so much"
        assert trial or not inner, "it spills where it multiplies"
    kernels = {f"{case.kernel.fn.__module__}.{case.kernel.fn.__name__}" for case in cases}
    assert trial or kernels == launched(), kernels ^ launched()
    print(f"{len(kernels)} kernels, {len(cases)} ways")


if __name__ == "__main__":
    main(int(sys.argv[1]), trial="tiles" in sys.argv[2:])
