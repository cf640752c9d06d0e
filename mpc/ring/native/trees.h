// Shares of the cells that secrets lie in, for one side of a point function of every prefix (torch_cells.py).
#pragma once

#include <cstdint>

namespace hush {

struct Trees {
    int64_t n, tables, fine, lowest, highest;
    int side;
    const uint8_t *keys[3];      // AES-128: left, right, value
    const uint8_t *corrections;  // [n][17 * depth + 8 * widths]
    const uint64_t *seeds;       // [n][2]
    const uint64_t *offsets;     // [n]
    const uint64_t *entries;     // [count][tables]
    uint64_t *out;               // [n][tables]
    void *work;                  // trees_work bytes, aligned to 64
};

int64_t trees_work(int64_t fine);
bool trees_supported();
void trees(const Trees &);

}  // namespace hush
