// AVX-512 F, DQ (vpmullq), VL and BW.
#define HUSH_ISA avx512
#define HUSH_ISA_NAME "avx512"
#define HUSH_VECTOR_BYTES 64
#define HUSH_TILE_ROWS 8
#define HUSH_TILE_VECTORS 2
#include "kernels.inc"
