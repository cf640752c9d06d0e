// The kernels of one instruction set, as a table of functions. kernels.inc defines one such table per translation unit.
#pragma once

#include <cstdint>

namespace hush {

// A term of a product: (a0 + a1) * (b0 + b1), where either sum may have one summand only (the other is nullptr).
struct Term {
    const void *a0, *a1, *b0, *b1;
};

// c[m][n] = sum over the terms and over k of a[m][k] * b[k][n].
// Element b[k][n] lies at b + row[k] + col[n], so a transposed matrix, a matrix of strides and the sliding windows of a
// convolution are all the same to the packing.
struct Gemm {
    int64_t m, n, k;
    int count;
    Term terms[2];
    int64_t a_row, a_col;
    const int64_t *row, *col;
    void *c;
    int64_t c_row;
    void *work;  // Kernels::work_bytes, aligned to 64
};

// out[i] = x0[i] * (y0[i] + y1[i]) + x1[i] * y0[i]; a step of 0 repeats one element, 1 walks.
struct CrossMul {
    int64_t n;
    const void *x0, *x1, *y0, *y1;
    int64_t x_step, y_step;
    void *out;
};

// Bit planes: element e of n is bit e % 64 of word e / 64; plane p starts at planes + p * plane_step.
struct Planes {
    int64_t n, count, shift;
    uint64_t *planes;
    int64_t plane_step;
    void *elements;
};

// Ring elements as they travel: whole words (planes == 0), or so many bit planes, `step` words apart.
struct Message {
    int64_t planes;
    void *data;
    int64_t step;
};

// One step of a truncation from 2^k to 2^out that drops `shift` bits; which operands a step reads is in steps.inc.
struct Trim {
    int64_t n, k, out, shift;
    const void *mine, *got, *z, *low, *mask, *other, *drawn;
    void *base, *masked;
    Message message;
};

struct Narrow {
    int64_t n, k, out, shift;
    const void *z, *plus, *minus;
    uint64_t constant;
    void *to;
};

// to = sum of factors times operands, plus a constant, mod 2^k.
struct Blend {
    int64_t n, k, count;
    const void *xs[4];
    uint64_t factors[4], constant;
    void *to;
};

// One step of a selection in 2^k by bits in words of planes.
struct Choice {
    int64_t n, k;
    const uint64_t *b0, *b1;
    const void *x0, *x1, *other, *a, *d;
    void *to, *second;
};

// Widths of a truncation's ring, its output's and that of the output's top, 1 for 32 bits: 4 ring + 2 output + top.
using TrimStep = void (*)(const Trim &);

// Per element width: [0] 64 bits, [1] 32 bits.
struct Kernels {
    const char *name;
    int64_t work_bytes;
    void (*gemm[2])(const Gemm &);
    void (*cross_mul[2])(const CrossMul &);
    void (*to_planes[2])(const Planes &);    // bits shift .. shift + count - 1, past the last element 0
    void (*from_planes[2])(const Planes &);  // shift ignored, count at most the width
    void (*spread[2])(const Planes &);       // elements [count][n], each 0 or 1
    TrimStep answer[8], correct[8], split[8];
    void (*narrow[4])(const Narrow &);       // 2 ring + output
    void (*blend[2])(const Blend &);
    void (*deal_choice[2])(const Choice &), (*choose[2])(const Choice &);
    void (*chacha)(const uint8_t *key, const uint8_t *nonce, int64_t n, uint8_t *out);
};

extern const Kernels portable;
#ifdef HUSH_X86
extern const Kernels avx2;
extern const Kernels avx512;
#endif

}  // namespace hush
