// AVX-512 F, DQ (vpmullq), VL and BW: 24 of 32 registers accumulate.
#define HUSH_ISA avx512
#define HUSH_ISA_NAME "avx512"
#define HUSH_VECTOR_BYTES 64
#define HUSH_TILE_ROWS 6
#define HUSH_TILE_VECTORS 4
#include "kernels.inc"
