"""Replicated secret sharing among three parties, honest majority, semi-honest.

x = x_0 + x_1 + x_2 in Z_2^k; party i holds (x_i, x_{i+1}), `Shared.parts` in that order. Boolean shares likewise, by
XOR.

Where things are:
- one party's side: `party`, `protocol` (the primitives, which delegate), `local` and `linear` (no messages)
- `zero`, `opening`; `products` and `public` (a secret or a public factor), then `truncate`, which picks `fused` or a
  narrow truncation by `widths`; `exact`
- `boolean`, `pairs`, `digits`, `adder`, `compare`, `convert`, `shuffle`: bits, comparisons, conversions, order
- `rotation` (which party plays which role on which slice), `wire` (how elements travel)
- `costs`, `costs_bits` (traffic as formulas), `cost` (the cost model)
- outside a step: `sharing` (dealing and reconstructing), `invocation` (the frame of one run)
"""
