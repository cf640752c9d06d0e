// The walk of torch_cells.py by the CPU's AES instructions: a secret's levels stay in the nearest cache, and each cell's
// share meets the tables' entries where it is made.

#include "trees.h"

#if defined(HUSH_X86)
#include <cstring>
#include <wmmintrin.h>
#include <smmintrin.h>

namespace hush {
namespace {

constexpr int kRounds = 10, kLanes = 8;  // blocks under way at once: they hide the latency of a round
constexpr int64_t kLevel = 17;

struct Schedule {
    __m128i key[kRounds + 1];
};

template <int RC> __m128i next_key(__m128i key) {
    const __m128i word = _mm_shuffle_epi32(_mm_aeskeygenassist_si128(key, RC), 0xff);
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    return _mm_xor_si128(key, word);
}

Schedule schedule(const uint8_t *key) {
    Schedule s;
    s.key[0] = _mm_loadu_si128(reinterpret_cast<const __m128i *>(key));
    s.key[1] = next_key<0x01>(s.key[0]);
    s.key[2] = next_key<0x02>(s.key[1]);
    s.key[3] = next_key<0x04>(s.key[2]);
    s.key[4] = next_key<0x08>(s.key[3]);
    s.key[5] = next_key<0x10>(s.key[4]);
    s.key[6] = next_key<0x20>(s.key[5]);
    s.key[7] = next_key<0x40>(s.key[6]);
    s.key[8] = next_key<0x80>(s.key[7]);
    s.key[9] = next_key<0x1b>(s.key[8]);
    s.key[10] = next_key<0x36>(s.key[9]);
    return s;
}

// out[i] = AES(in[i]) ^ in[i] for `Count` blocks.
template <int Count> inline void grow(const Schedule &s, const __m128i *in, __m128i *out) {
    __m128i x[Count];
    for (int i = 0; i < Count; ++i) x[i] = _mm_xor_si128(in[i], s.key[0]);
    for (int r = 1; r < kRounds; ++r)
        for (int i = 0; i < Count; ++i) x[i] = _mm_aesenc_si128(x[i], s.key[r]);
    for (int i = 0; i < Count; ++i) out[i] = _mm_xor_si128(_mm_aesenclast_si128(x[i], s.key[kRounds]), in[i]);
}

inline uint64_t low(__m128i x) { return static_cast<uint64_t>(_mm_cvtsi128_si64(x)); }

// All ones where the control bit is set.
inline __m128i active(__m128i node) { return _mm_set1_epi64x(static_cast<int64_t>(0 - (low(node) & 1))); }

template <int Count>
inline void children_of(const Schedule &left, const Schedule &right, const __m128i *nodes, __m128i for_left,
                        __m128i for_right, __m128i *out) {
    __m128i grown[2][Count];
    grow<Count>(left, nodes, grown[0]);
    grow<Count>(right, nodes, grown[1]);
    for (int i = 0; i < Count; ++i) {
        const __m128i on = active(nodes[i]);
        out[2 * i] = _mm_xor_si128(grown[1][i], _mm_and_si128(on, for_right));
        out[2 * i + 1] = _mm_xor_si128(grown[0][i], _mm_and_si128(on, for_left));
    }
}

// [2 m] children of m nodes, right before left: the order of falling prefixes.
void children(const Schedule &left, const Schedule &right, const __m128i *nodes, int64_t m, const uint8_t *correction,
              __m128i *out) {
    const __m128i seed = _mm_loadu_si128(reinterpret_cast<const __m128i *>(correction));
    const __m128i for_left = _mm_or_si128(seed, _mm_cvtsi64_si128(correction[16] & 1));
    const __m128i for_right = _mm_or_si128(seed, _mm_cvtsi64_si128(correction[16] >> 1 & 1));
    int64_t i = 0;
    for (; i + kLanes <= m; i += kLanes) children_of<kLanes>(left, right, nodes + i, for_left, for_right, out + 2 * i);
    for (; i < m; ++i) children_of<1>(left, right, nodes + i, for_left, for_right, out + 2 * i);
}

template <int Count>
inline void add(const Schedule &value, const __m128i *nodes, uint64_t correction, const uint64_t *entries,
                int64_t tables, uint64_t *sums) {
    __m128i grown[Count];
    grow<Count>(value, nodes, grown);
    for (int i = 0; i < Count; ++i) {
        const uint64_t share = static_cast<uint64_t>(_mm_extract_epi64(grown[i], 1)) + ((0 - (low(nodes[i]) & 1)) & correction);
        for (int64_t t = 0; t < tables; ++t) sums[t] += share * entries[i * tables + t];
    }
}

// sums += the shares of cells at m nodes, times their entries.
void add_all(const Schedule &value, const __m128i *nodes, int64_t m, uint64_t correction, const uint64_t *entries,
             int64_t tables, uint64_t *sums) {
    int64_t i = 0;
    for (; i + kLanes <= m; i += kLanes) add<kLanes>(value, nodes + i, correction, entries + i * tables, tables, sums);
    for (; i < m; ++i) add<1>(value, nodes + i, correction, entries + i * tables, tables, sums);
}

inline void add_masked(const Schedule &value, __m128i node, uint64_t mask, uint64_t correction, const uint64_t *entries,
                       int64_t tables, uint64_t *sums) {
    __m128i grown;
    grow<1>(value, &node, &grown);
    const uint64_t share = static_cast<uint64_t>(_mm_extract_epi64(grown, 1)) + ((0 - (low(node) & 1)) & correction);
    for (int64_t t = 0; t < tables; ++t) sums[t] += (share & mask) * entries[t];
}

uint64_t word(const uint8_t *p) {
    uint64_t x;
    std::memcpy(&x, p, 8);
    return x;
}

}  // namespace

bool trees_supported() { return __builtin_cpu_supports("aes") && __builtin_cpu_supports("sse4.1"); }

int64_t trees_work(int64_t fine) { return 2 * 16 * (int64_t{8} << fine); }

void trees(const Trees &g) {
    const Schedule left = schedule(g.keys[0]), right = schedule(g.keys[1]), value = schedule(g.keys[2]);
    const int64_t cells = int64_t{1} << g.fine, most = 2 * cells + 1, bits = g.highest + g.fine + 2;
    const int64_t depth = bits - g.lowest, widths = g.highest - g.lowest + 1, step = kLevel * depth + 8 * widths;
    const int64_t upper = g.fine + 2, mask = (int64_t{1} << upper) - 1;
    __m128i *nodes = static_cast<__m128i *>(g.work), *other = nodes + (8 << g.fine);
    for (int64_t row = 0; row < g.n; ++row) {
        const uint8_t *raw = g.corrections + row * step;
        const uint64_t w = g.offsets[row];
        uint64_t *sums = g.out + row * g.tables;
        for (int64_t t = 0; t < g.tables; ++t) sums[t] = 0;
        nodes[0] = _mm_set_epi64x(static_cast<int64_t>(g.seeds[2 * row + 1]),
                                  static_cast<int64_t>((g.seeds[2 * row] & ~uint64_t{1}) | static_cast<uint64_t>(g.side)));
        for (int64_t level = 0; level < upper; ++level) {
            children(left, right, nodes, int64_t{1} << level, raw + level * kLevel, other);
            __m128i *swap = nodes;
            nodes = other;
            other = swap;
        }
        for (int64_t i = 0; i <= most; ++i)
            other[i] = nodes[~(static_cast<int64_t>(w >> g.highest) - i) & mask];
        __m128i *swap = nodes;
        nodes = other;
        other = swap;
        const uint64_t *entries = g.entries;
        const __m128i *at = nodes;
        for (int64_t s = g.highest; s >= g.lowest; --s) {
            uint64_t set = ~uint64_t{0};
            if (s < g.highest) {
                children(left, right, at, cells + 1, raw + (bits - 1 - s) * kLevel, other);
                swap = nodes;
                nodes = other;
                other = swap;
                at = nodes + (~w >> s & 1);  // by index from 0: children begin at -1 where the bit is not set
                set = 0 - (w >> s & 1);
            }
            const int64_t first = s == 0 ? 0 : cells + 1;
            const uint64_t correction = word(raw + kLevel * depth + 8 * (g.highest - s));
            add_all(value, at + first, most - first, correction, entries, g.tables, sums);
            // the last cell is there only if the wider ones begin after it: masked, not skipped, whatever w is
            add_masked(value, at[most], set, correction, entries + (most - first) * g.tables, g.tables, sums);
            entries += (most + 1 - first) * g.tables;
        }
        if (g.side)
            for (int64_t t = 0; t < g.tables; ++t) sums[t] = 0 - sums[t];
    }
}

}  // namespace hush
#else
namespace hush {
bool trees_supported() { return false; }
int64_t trees_work(int64_t) { return 0; }
void trees(const Trees &) {}
}  // namespace hush
#endif
