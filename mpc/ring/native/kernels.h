// The kernels of one instruction set, as a table of functions. kernels.inc defines one such table per translation unit.
#pragma once

#include <cstdint>

namespace hush {

// c[m][n] = sum over k of a0[m][k] * b0[k][n]                                          (a1 == b1 == nullptr)
// c[m][n] = sum over k of a0[m][k] * (b0[k][n] + b1[k][n]) + a1[m][k] * b0[k][n]        (the replicated product)
// Element b[k][n] lies at b + row[k] + col[n], so a transposed matrix, a matrix of strides and the sliding windows of a
// convolution are all the same to the packing.
struct Gemm {
    int64_t m, n, k;
    const void *a0, *a1;
    int64_t a_row, a_col;
    const void *b0, *b1;
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

// Per element width: [0] 64 bits, [1] 32 bits.
struct Kernels {
    const char *name;
    int64_t work_bytes;
    void (*gemm[2])(const Gemm &);
    void (*cross_mul[2])(const CrossMul &);
    void (*to_planes[2])(const Planes &);    // bits shift .. shift + count - 1, past the last element 0
    void (*from_planes[2])(const Planes &);  // shift ignored, count at most the width
    void (*spread[2])(const Planes &);       // elements [count][n], each 0 or 1
};

extern const Kernels portable;
#ifdef HUSH_X86
extern const Kernels avx2;
extern const Kernels avx512;
#endif

}  // namespace hush
