"""The primitives on CrypTen 0.4.1: two parties, additive shares in 2^64, a trusted first party. A baseline, no product.

Our functions run on CrypTen's shared tensors: its products, its conversions between arithmetic and binary shares, its
opening. Its exp, erf, reciprocal and inv_sqrt are never used: they diverge inside the ranges of a transformer.

NO PRIVACY AGAINST PARTY 0: it makes every triple and so can read every opening. `docs/crypten.md` has all warnings.

Where things are:
- `library` (the only import of the package), `world` (joining the other party, CrypTen's counters), `beat`
- `protocol` (the primitives); `products`, `truncate`, `bits`, `order`; `wide` (what stands for narrow rings)
- `sharing` (outside a run: dealing and reconstructing)
"""
