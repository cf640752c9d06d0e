// AVX2: no 64-bit multiply, so 64-bit products come from two 32-bit ones (HUSH_SPLIT_MULTIPLY).
#define HUSH_ISA avx2
#define HUSH_ISA_NAME "avx2"
#define HUSH_VECTOR_BYTES 32
#define HUSH_TILE_ROWS 3
#define HUSH_TILE_VECTORS 2
#define HUSH_SPLIT_MULTIPLY 1
#include "kernels.inc"
