// Any CPU: 16-byte vectors, which every 64-bit target has.
#define HUSH_ISA portable
#define HUSH_ISA_NAME "portable"
#define HUSH_VECTOR_BYTES 16
#define HUSH_TILE_ROWS 4
#define HUSH_TILE_VECTORS 2
#include "kernels.inc"
