// The Python module hush.mpc.ring._cpu: checks shapes, cuts work over threads and calls one instruction set's kernels.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kernels.h"
#include "trees.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using hush::Gemm;
using hush::Term;
using Array = nb::ndarray<nb::device::cpu>;
using Pair = std::optional<Array>;

constexpr int64_t kThreadWork = int64_t{1} << 20;  // multiplications that pay for starting a thread

void require(bool holds, const char *what) {
    if (!holds) throw std::invalid_argument(what);
}

int width_of(const Array &x) {
    require(x.dtype().code == static_cast<uint8_t>(nb::dlpack::dtype_code::Int), "elements must be int64 or int32");
    require(x.itemsize() == 8 || x.itemsize() == 4, "elements must be int64 or int32");
    return x.itemsize() == 8 ? 0 : 1;
}

int64_t extent(const Array &x, size_t dim) { return static_cast<int64_t>(x.shape(dim)); }

bool contiguous(const Array &x) {
    if (x.size() == 0) return true;
    int64_t step = 1;
    for (size_t dim = x.ndim(); dim-- > 0; step *= extent(x, dim)) {
        if (extent(x, dim) > 1 && x.stride(dim) != step) return false;
    }
    return true;
}

// A second operand of the replicated product has the layout of the first, so that one set of offsets serves both.
void require_like(const Array &x, const Pair &other) {
    if (!other) return;
    require(other->ndim() == x.ndim() && other->itemsize() == x.itemsize(), "components differ in type or rank");
    for (size_t dim = 0; dim < x.ndim(); ++dim) {
        require(other->shape(dim) == x.shape(dim), "components differ in shape");
        require(x.shape(dim) < 2 || other->stride(dim) == x.stride(dim), "components differ in strides");
    }
}

const char *at(const Array &x, int64_t offset) {
    return static_cast<const char *>(x.data()) + offset * static_cast<int64_t>(x.itemsize());
}
const char *at(const Pair &x, int64_t offset) { return x ? at(*x, offset) : nullptr; }

struct Free {
    void operator()(void *p) const { std::free(p); }
};

std::unique_ptr<void, Free> work_space(int64_t bytes) {
    void *p = std::aligned_alloc(64, static_cast<size_t>((bytes + 63) / 64 * 64));
    if (!p) throw std::bad_alloc();
    return std::unique_ptr<void, Free>(p);
}

// The products of a batch, over at most `threads` threads: whole products first, else slices of their longer side.
void run(const hush::Kernels &kernels, int width, const std::vector<Gemm> &batch, int64_t threads) {
    if (batch.empty() || batch[0].m == 0 || batch[0].n == 0) return;
    const int64_t items = static_cast<int64_t>(batch.size()), size = width == 0 ? 8 : 4;
    const int64_t work = items * batch[0].m * batch[0].n * (batch[0].k + 1);
    threads = std::max<int64_t>(1, std::min(threads, work / kThreadWork));
    const bool by_rows = batch[0].m > batch[0].n;
    const int64_t side = by_rows ? batch[0].m : batch[0].n;
    const int64_t slices = std::min(side, (threads + items - 1) / items);
    const auto share = [&](int64_t thread, void *space) {
        for (int64_t job = thread; job < items * slices; job += threads) {
            Gemm g = batch[static_cast<size_t>(job / slices)];
            const int64_t from = side * (job % slices) / slices, to = side * (job % slices + 1) / slices;
            if (by_rows) {
                g.m = to - from;
                for (Term &term : g.terms) {
                    if (term.a0) term.a0 = static_cast<const char *>(term.a0) + from * g.a_row * size;
                    if (term.a1) term.a1 = static_cast<const char *>(term.a1) + from * g.a_row * size;
                }
                g.c = static_cast<char *>(g.c) + from * g.c_row * size;
            } else {
                g.n = to - from;
                g.col += from;
                g.c = static_cast<char *>(g.c) + from * size;
            }
            g.work = space;
            kernels.gemm[width](g);
        }
    };
    std::vector<std::unique_ptr<void, Free>> spaces;
    for (int64_t t = 0; t < threads; ++t) spaces.push_back(work_space(kernels.work_bytes));
    std::vector<std::thread> helpers;
    for (int64_t t = 1; t < threads; ++t) helpers.emplace_back(share, t, spaces[static_cast<size_t>(t)].get());
    share(0, spaces[0].get());
    for (auto &helper : helpers) helper.join();
}

constexpr int kWhole = -1;  // no role: a party's whole part of a replicated product

// The terms of a product of components (a0, a1) and (b0, b1). Whole: a0 (b0 + b1) + a1 b0, at every party. By roles, which
// together make the same sum of nine products in five instead of six: (a0 + a1)(b0 + b1); a1 (b0 + b1) + a0 b1; a0 b1 + a1 b0.
Gemm product(std::array<int64_t, 3> size, Term c, int role) {
    Gemm g{};
    g.m = size[0], g.n = size[1], g.k = size[2], g.count = c.a1 && role != 0 ? 2 : 1;
    if (!c.a1) {
        g.terms[0] = {c.a0, nullptr, c.b0, nullptr};
    } else if (role == 0) {
        g.terms[0] = c;
    } else if (role == 1) {
        g.terms[0] = {c.a1, nullptr, c.b1, c.b0};
        g.terms[1] = {c.a0, nullptr, c.b1, nullptr};
    } else if (role == 2) {
        g.terms[0] = {c.a0, nullptr, c.b1, nullptr};
        g.terms[1] = {c.a1, nullptr, c.b0, nullptr};
    } else {
        g.terms[0] = {c.a0, nullptr, c.b0, c.b1};
        g.terms[1] = {c.a1, nullptr, c.b0, nullptr};
    }
    return g;
}

std::vector<const hush::Kernels *> supported() {
    std::vector<const hush::Kernels *> sets;
#ifdef HUSH_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw")) {
        sets.push_back(&hush::avx512);
    }
    if (__builtin_cpu_supports("avx2")) sets.push_back(&hush::avx2);
#endif
    sets.push_back(&hush::portable);
    return sets;
}

using Widths = std::array<int64_t, 3>;  // bits of the ring, of the output's, and dropped

class Kernels {
  public:
    explicit Kernels(const std::string &isa) {
        for (const auto *set : supported()) {
            if (isa == set->name) table_ = set;
        }
        if (!table_) throw std::invalid_argument("this CPU has no instruction set " + isa);
    }

    std::string name() const { return table_->name; }

    // x0 y0 of single components; of pairs the replicated product, or what a role does of it (see `terms`).
    void matmul(const Array &x0, const Pair &x1, const Array &y0, const Pair &y1, const Array &out, int64_t threads,
                int role) const {
        const int width = width_of(x0);
        require(width_of(y0) == width && width_of(out) == width, "element types differ");
        require(x0.ndim() == 3 && y0.ndim() == 3 && out.ndim() == 3, "matmul takes [batch, rows, columns]");
        require(x1.has_value() == y1.has_value(), "one component or two, for both operands");
        require_like(x0, x1);
        require_like(y0, y1);
        const int64_t items = extent(x0, 0), m = extent(x0, 1), k = extent(x0, 2), n = extent(y0, 2);
        require(extent(y0, 0) == items && extent(y0, 1) == k, "operands do not fit each other");
        require(extent(out, 0) == items && extent(out, 1) == m && extent(out, 2) == n, "wrong output");
        require(n < 2 || out.size() == 0 || out.stride(2) == 1, "the columns of the output must be adjacent");
        nb::gil_scoped_release unlocked;
        const auto row = ramp(k, y0.stride(1)), col = ramp(n, y0.stride(2));
        std::vector<Gemm> batch;
        for (int64_t i = 0; i < items; ++i) {
            const int64_t x = i * x0.stride(0), y = i * y0.stride(0);
            batch.push_back(product({m, n, k}, {at(x0, x), at(x1, x), at(y0, y), at(y1, y)}, role));
            Gemm &g = batch.back();
            g.a_row = x0.stride(1), g.a_col = x0.stride(2), g.row = row.data(), g.col = col.data();
            g.c = const_cast<char *>(at(out, i * out.stride(0))), g.c_row = out.stride(1);
        }
        run(*table_, width, batch, threads);
    }

    // A product of the kernel [O/groups, C/groups * KH * KW] with the sliding windows of x, for each image and group.
    void conv(const Array &x0, const Pair &x1, const Array &w0, const Pair &w1, const Array &out,
              std::array<int64_t, 2> stride, std::array<int64_t, 2> dilation, int64_t groups, int64_t threads) const {
        const int width = width_of(x0);
        require(width_of(w0) == width && width_of(out) == width, "element types differ");
        require(x0.ndim() == 4 && w0.ndim() == 4 && out.ndim() == 4, "conv takes [N, C, H, W] and [O, C/groups, KH, KW]");
        require(x1.has_value() == w1.has_value(), "one component or two, for both operands");
        require_like(x0, x1);
        require_like(w0, w1);
        const int64_t images = extent(x0, 0), outputs = extent(w0, 0), inputs = extent(w0, 1);
        const int64_t high = extent(out, 2), wide = extent(out, 3);
        require(groups > 0 && outputs % groups == 0 && extent(x0, 1) == inputs * groups, "groups do not divide channels");
        require(extent(out, 0) == images && extent(out, 1) == outputs && contiguous(out) && contiguous(w0), "wrong layout");
        require(high > 0 && wide > 0, "the kernel is larger than its input");
        for (size_t i = 0; i < 2; ++i) {
            require(stride[i] > 0 && dilation[i] > 0 && extent(w0, 2 + i) > 0, "stride and dilation must be positive");
            const int64_t last = (extent(out, 2 + i) - 1) * stride[i] + (extent(w0, 2 + i) - 1) * dilation[i];
            require(last < extent(x0, 2 + i), "a window leaves its input");
        }
        nb::gil_scoped_release unlocked;
        const auto row = grid({inputs, extent(w0, 2), extent(w0, 3)},
                              {x0.stride(1), dilation[0] * x0.stride(2), dilation[1] * x0.stride(3)});
        const auto col = grid({1, high, wide}, {0, stride[0] * x0.stride(2), stride[1] * x0.stride(3)});
        const int64_t m = outputs / groups, k = static_cast<int64_t>(row.size()), n = high * wide;
        std::vector<Gemm> batch;
        for (int64_t item = 0; item < images * groups; ++item) {
            const int64_t image = item / groups, group = item % groups, w = group * m * k;
            const int64_t x = image * x0.stride(0) + group * inputs * x0.stride(1);
            batch.push_back(product({m, n, k}, {at(w0, w), at(w1, w), at(x0, x), at(x1, x)}, kWhole));
            Gemm &g = batch.back();
            g.a_row = k, g.a_col = 1, g.row = row.data(), g.col = col.data();
            g.c = const_cast<char *>(at(out, item * m * n)), g.c_row = n;
        }
        run(*table_, width, batch, threads);
    }

    // All of one shape after broadcasting; innermost strides 0 or 1.
    void cross_mul(const Array &x0, const Array &x1, const Array &y0, const Array &y1, const Array &out) const {
        const int width = width_of(x0);
        require(width_of(y0) == width && width_of(out) == width, "element types differ");
        require_like(x0, Pair(x1));
        require_like(y0, Pair(y1));
        const size_t dims = x0.ndim();
        require(dims > 0 && y0.ndim() == dims && out.ndim() == dims && contiguous(out), "wrong output");
        for (size_t dim = 0; dim < dims; ++dim) {
            require(x0.shape(dim) == out.shape(dim) && y0.shape(dim) == out.shape(dim), "operands differ in shape");
        }
        const auto step = [&](const Array &x) { return x.shape(dims - 1) < 2 ? 1 : x.stride(dims - 1); };
        const int64_t x_step = step(x0), y_step = step(y0);
        require((x_step | 1) == 1 && (y_step | 1) == 1, "innermost strides must be 0 or 1");
        nb::gil_scoped_release unlocked;
        if (out.size() == 0) return;
        size_t outer = dims - 1;
        int64_t inner = extent(out, outer);
        const auto joins = [&](const Array &x, int64_t by) { return x.stride(outer - 1) == by * inner; };
        for (; outer > 0 && joins(x0, x_step) && joins(y0, y_step); --outer) inner *= extent(out, outer - 1);
        std::vector<int64_t> index(outer, 0);
        for (int64_t done = 0, total = static_cast<int64_t>(out.size()); done < total; done += inner) {
            int64_t x = 0, y = 0;
            for (size_t dim = 0; dim < outer; ++dim) {
                x += index[dim] * x0.stride(dim);
                y += index[dim] * y0.stride(dim);
            }
            table_->cross_mul[width]({inner, at(x0, x), at(x1, x), at(y0, y), at(y1, y), x_step, y_step,
                                      const_cast<char *>(at(out, done))});
            for (size_t dim = outer; dim-- > 0;) {
                if (++index[dim] < extent(out, dim)) break;
                index[dim] = 0;
            }
        }
    }

    // planes [count, words] from elements [n]: bits shift .. shift + count - 1.
    void to_planes(const Array &elements, const Array &planes, int64_t shift) const {
        require(contiguous(planes), "planes must be contiguous");
        call(table_->to_planes, elements, planes, extent(elements, 0), shift);
    }

    // elements [n] from planes [count, words].
    void from_planes(const Array &planes, const Array &elements) const {
        call(table_->from_planes, elements, planes, extent(elements, 0), 0);
    }

    // elements [count, n], each a bit of planes [count, words].
    void spread(const Array &planes, const Array &elements) const {
        require(elements.ndim() == 2 && extent(elements, 0) == extent(planes, 0), "wrong output");
        call(table_->spread, elements, planes, extent(elements, 1), 0);
    }

    // Steps of a truncation (hush.mpc.ring.kernels.Kernels): the message is written, or read by `correct`.
    void answer(Widths widths, const Array &mine, const Pair &got, const Array &low, const Array &mask, const Array &base,
                const Array &message, const Pair &masked) const {
        const Trim g = trim(widths, base, message, {{mine, 0}, {got, 0}, {masked, 0}, {low, 2}, {mask, 2}});
        nb::gil_scoped_release unlocked;
        table_->answer[g.kind]({g.n, widths[0], widths[1], widths[2], at(mine, 0), at(got, 0), nullptr, at(low, 0),
                                at(mask, 0), nullptr, nullptr, out(base), out(masked), g.message});
    }

    void correct(Widths widths, const Array &base, const Array &message) const {
        const Trim g = trim(widths, base, message, {});
        nb::gil_scoped_release unlocked;
        table_->correct[g.kind]({g.n, widths[0], widths[1], widths[2], nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                                 nullptr, out(base), nullptr, g.message});
    }

    void split(Widths widths, const Array &mine, const Pair &got, const Array &z, const Array &drawn, const Array &low,
               const Array &mask, const Array &other, const Array &base, const Array &message, const Pair &masked) const {
        const Trim g = trim(widths, base, message,
                            {{mine, 0}, {got, 0}, {z, 0}, {masked, 0}, {drawn, 1}, {low, 2}, {mask, 2}, {other, 2}});
        nb::gil_scoped_release unlocked;
        table_->split[g.kind]({g.n, widths[0], widths[1], widths[2], at(mine, 0), at(got, 0), at(z, 0), at(low, 0),
                               at(mask, 0), at(other, 0), at(drawn, 0), out(base), out(masked), g.message});
    }

    void narrow(Widths widths, const Array &z, const Pair &plus, const Pair &minus, uint64_t constant,
                const Array &to) const {
        const int ring = width_of(z), output = width_of(to);
        const int64_t n = extent(to, 0);
        require(ring == (widths[0] > 32 ? 0 : 1) && output == (widths[1] > 32 ? 0 : 1), "element types differ");
        require(plus.has_value() == minus.has_value(), "a share of zero has two parts");
        require_flat(z, ring, n);
        for (const Pair *x : {&plus, &minus}) {
            if (*x) require_flat(**x, ring, n);
        }
        require_flat(to, output, n);
        nb::gil_scoped_release unlocked;
        table_->narrow[2 * ring + output](
            {n, widths[0], widths[1], widths[2], at(z, 0), at(plus, 0), at(minus, 0), constant, out(to)});
    }

    // out = sum of factors times xs, plus a constant; one to four operands.
    void blend(int64_t bits, const std::vector<Array> &xs, const std::vector<uint64_t> &factors, uint64_t constant,
               const Array &to) const {
        const int width = width_of(to);
        const int64_t n = extent(to, 0), count = static_cast<int64_t>(xs.size());
        require(count >= 1 && count <= 4 && factors.size() == xs.size(), "blend takes one to four operands");
        hush::Blend g{n, bits, count, {}, {}, constant, out(to)};
        require_flat(to, width, n);
        for (size_t j = 0; j < xs.size(); ++j) {
            require_flat(xs[j], width, n);
            g.xs[j] = at(xs[j], 0), g.factors[j] = factors[j];
        }
        nb::gil_scoped_release unlocked;
        table_->blend[width](g);
    }

    // Steps of a selection by single planes.
    void deal_choice(int64_t bits, const Array &b0, const Array &b1, const Array &x0, const Array &x1, const Array &a,
                     const Array &d, const Array &to, const Array &second) const {
        const int width = width_of(to);
        const int64_t n = extent(to, 0);
        for (const Array *x : {&x0, &x1, &a, &d, &to, &second}) require_flat(*x, width, n);
        for (const Array *b : {&b0, &b1}) require_flat(*b, 0, (n + 63) / 64);
        nb::gil_scoped_release unlocked;
        table_->deal_choice[width]({n, bits, words(b0), words(b1), at(x0, 0), at(x1, 0), nullptr, at(a, 0), at(d, 0), out(to),
                                    out(second)});
    }

    void choose(int64_t bits, const Array &c, const Array &x0, const Pair &x1, const Array &other, const Array &a,
                const Array &d, const Array &to) const {
        const int width = width_of(to);
        const int64_t n = extent(to, 0);
        for (const Array *x : {&x0, &other, &a, &d, &to}) require_flat(*x, width, n);
        if (x1) require_flat(*x1, width, n);
        require_flat(c, 0, (n + 63) / 64);
        nb::gil_scoped_release unlocked;
        table_->choose[width](
            {n, bits, words(c), nullptr, at(x0, 0), at(x1, 0), at(other, 0), at(a, 0), at(d, 0), out(to), nullptr});
    }

    void chacha20(nb::bytes key, nb::bytes nonce, const Array &to) const {
        require(key.size() == 32 && nonce.size() == 12, "ChaCha20 takes a key of 32 bytes and a nonce of 12");
        require(contiguous(to), "the output must be contiguous");
        const auto *k = static_cast<const uint8_t *>(key.data()), *v = static_cast<const uint8_t *>(nonce.data());
        const int64_t n = static_cast<int64_t>(to.nbytes());
        auto *bytes = static_cast<uint8_t *>(out(to));
        nb::gil_scoped_release unlocked;
        table_->chacha(k, v, n, bytes);
    }

  private:
    using Operand = std::pair<Pair, int>;  // and whose width it has: 0 the ring's, 1 the output's, 2 the top's
    struct Trim {
        int64_t n;
        int kind;
        hush::Message message;
    };

    static void *out(const Array &x) { return const_cast<char *>(at(x, 0)); }
    static void *out(const Pair &x) { return x ? out(*x) : nullptr; }
    static const uint64_t *words(const Array &x) { return reinterpret_cast<const uint64_t *>(at(x, 0)); }

    static void require_flat(const Array &x, int width, int64_t n) {
        require(width_of(x) == width, "element types differ");
        require(x.ndim() == 1 && extent(x, 0) == n && contiguous(x), "operands are flat, contiguous and of one length");
    }

    // The sizes and the message of a truncation's step, checked against its operands.
    static Trim trim(const Widths &w, const Array &base, const Array &message, const std::vector<Operand> &operands) {
        const int64_t k = w[0], out_bits = w[1], shift = w[2], top = out_bits - (k - 1 - shift), n = extent(base, 0);
        require(k >= 3 && k <= 64 && shift >= 0 && shift <= k - 2 && out_bits <= 64 && top >= 2 && top <= out_bits,
                "widths that no truncation has");
        const int width[3] = {k > 32 ? 0 : 1, out_bits > 32 ? 0 : 1, top > 32 ? 0 : 1};
        require_flat(base, width[1], n);
        for (const auto &[x, kind] : operands) {
            if (x) require_flat(*x, width[kind], n);
        }
        require(contiguous(message), "a message must be contiguous");
        Trim found{n, 4 * width[0] + 2 * width[1] + width[2], {0, out(message), 0}};
        if (top == 32 || top == 64) {
            require_flat(message, width[2], n);
        } else {
            require(message.ndim() == 2 && width_of(message) == 0 && extent(message, 0) == top &&
                        extent(message, 1) == (n + 63) / 64,
                    "the message does not fit the elements");
            found.message.planes = top;
            found.message.step = extent(message, 1);
        }
        return found;
    }

    static std::vector<int64_t> ramp(int64_t count, int64_t step) {
        std::vector<int64_t> out(static_cast<size_t>(count));
        for (int64_t i = 0; i < count; ++i) out[static_cast<size_t>(i)] = i * step;
        return out;
    }

    static std::vector<int64_t> grid(std::array<int64_t, 3> counts, std::array<int64_t, 3> steps) {
        std::vector<int64_t> out;
        for (int64_t i = 0; i < counts[0]; ++i)
            for (int64_t j = 0; j < counts[1]; ++j)
                for (int64_t k = 0; k < counts[2]; ++k) out.push_back(i * steps[0] + j * steps[1] + k * steps[2]);
        return out;
    }

    void call(void (*const kernel[2])(const hush::Planes &), const Array &elements, const Array &planes, int64_t n,
              int64_t shift) const {
        const int width = width_of(elements);
        require(planes.ndim() == 2 && width_of(planes) == 0, "planes are int64 [count, words]");
        const int64_t count = extent(planes, 0), words = extent(planes, 1), bits = width == 0 ? 64 : 32;
        require(contiguous(elements) && words == (n + 63) / 64, "planes and elements do not fit each other");
        require(count == 0 || words < 2 || planes.stride(1) == 1, "the words of a plane must be contiguous");
        require(shift >= 0 && (kernel == table_->spread || shift + count <= bits), "more planes than bits");
        nb::gil_scoped_release unlocked;
        if (count == 0 || n == 0) return;
        kernel[width]({n, count, shift, reinterpret_cast<uint64_t *>(const_cast<char *>(at(planes, 0))),
                       planes.stride(0), const_cast<char *>(at(elements, 0))});
    }

    const hush::Kernels *table_ = nullptr;
};

std::vector<std::string> names() {
    std::vector<std::string> out;
    for (const auto *set : supported()) out.emplace_back(set->name);
    return out;
}

using Bytes = nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>;
using Words = nb::ndarray<const int64_t, nb::c_contig, nb::device::cpu>;

void trees(const nb::bytes &keys, const Bytes &corrections, const Words &seeds, const Words &offsets, const Words &tables,
           const nb::ndarray<int64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu> &out, std::array<int64_t, 3> shape,
           int side) {
    const auto [fine, lowest, highest] = shape;
    require(hush::trees_supported(), "this CPU has no AES instructions");
    require(fine >= 1 && fine < 24 && lowest >= 0 && highest >= lowest && highest + fine + 2 <= 64, "no such cells");
    const int64_t n = static_cast<int64_t>(out.shape(0)), count = static_cast<int64_t>(out.shape(1));
    const int64_t cells = int64_t{1} << fine, widths = highest - lowest + 1, depth = highest + fine + 2 - lowest;
    const int64_t entries = widths * (cells + 1) + (lowest == 0 ? cells + 1 : 0);
    require(keys.size() == 48 && (side == 0 || side == 1), "three keys, and side 0 or 1");
    require(static_cast<int64_t>(corrections.size()) == n * (17 * depth + 8 * widths), "corrections of another size");
    require(static_cast<int64_t>(seeds.size()) == 2 * n && static_cast<int64_t>(offsets.size()) == n, "seeds or offsets of another size");
    require(static_cast<int64_t>(tables.size()) == entries * count, "tables of another size");
    const auto *key = reinterpret_cast<const uint8_t *>(keys.c_str());
    nb::gil_scoped_release unlocked;
    const auto space = work_space(hush::trees_work(fine));
    const auto words = [](const Words &x) { return reinterpret_cast<const uint64_t *>(x.data()); };
    hush::trees({n, count, fine, lowest, highest, side, {key, key + 16, key + 32}, corrections.data(), words(seeds),
                 words(offsets), words(tables), reinterpret_cast<uint64_t *>(out.data()), space.get()});
}

void turned_sums(const nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu> &codes, const Words &turns,
                 const Words &row, const nb::ndarray<uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu> &out) {
    const int64_t n = static_cast<int64_t>(codes.shape(0)), bins = static_cast<int64_t>(codes.shape(1));
    const int64_t rows = static_cast<int64_t>(out.shape(0));
    require(bins > 0 && (bins & (bins - 1)) == 0 && static_cast<int64_t>(out.shape(1)) == bins, "bins are a power of two");
    require(static_cast<int64_t>(turns.size()) == n && static_cast<int64_t>(row.size()) == n, "a turn and a row a code");
    for (int64_t i = 0; i < n; ++i) require(row.data()[i] >= 0 && row.data()[i] < rows, "no such row");
    nb::gil_scoped_release unlocked;
    for (int64_t i = 0; i < n; ++i) {
        const int64_t turn = turns.data()[i] & (bins - 1);
        const uint8_t *code = codes.data() + i * bins;
        uint8_t *sum = out.data() + row.data()[i] * bins;
        for (int64_t v = 0; v < bins - turn; ++v) sum[turn + v] = static_cast<uint8_t>(sum[turn + v] + code[v]);
        for (int64_t v = 0; v < turn; ++v) sum[v] = static_cast<uint8_t>(sum[v] + code[bins - turn + v]);
    }
}

}  // namespace

NB_MODULE(_cpu, m) {
    m.def("supported", &names);
    m.def("has_trees", &hush::trees_supported);
    m.def("turned_sums", &turned_sums, "codes"_a, "turns"_a, "row"_a, "out"_a);
    m.def("trees", &trees, "keys"_a, "corrections"_a, "seeds"_a, "offsets"_a, "tables"_a, "out"_a, "shape"_a, "side"_a);
    nb::class_<Kernels>(m, "Kernels")
        .def(nb::init<const std::string &>(), "isa"_a)
        .def_prop_ro("isa", &Kernels::name)
        .def("matmul", &Kernels::matmul, "x0"_a, "x1"_a.none(), "y0"_a, "y1"_a.none(), "out"_a, "threads"_a,
             "role"_a = kWhole)
        .def("conv", &Kernels::conv, "x0"_a, "x1"_a.none(), "w0"_a, "w1"_a.none(), "out"_a, "stride"_a, "dilation"_a,
             "groups"_a, "threads"_a)
        .def("cross_mul", &Kernels::cross_mul, "x0"_a, "x1"_a, "y0"_a, "y1"_a, "out"_a)
        .def("to_planes", &Kernels::to_planes, "elements"_a, "out"_a, "shift"_a)
        .def("from_planes", &Kernels::from_planes, "planes"_a, "out"_a)
        .def("spread", &Kernels::spread, "planes"_a, "out"_a)
        .def("answer", &Kernels::answer, "widths"_a, "mine"_a, "got"_a.none(), "low"_a, "mask"_a, "base"_a, "message"_a,
             "masked"_a.none())
        .def("correct", &Kernels::correct, "widths"_a, "base"_a, "message"_a)
        .def("split", &Kernels::split, "widths"_a, "mine"_a, "got"_a.none(), "z"_a, "drawn"_a, "low"_a, "mask"_a, "other"_a,
             "base"_a, "message"_a, "masked"_a.none())
        .def("narrow", &Kernels::narrow, "widths"_a, "z"_a, "plus"_a.none(), "minus"_a.none(), "constant"_a, "out"_a)
        .def("blend", &Kernels::blend, "bits"_a, "xs"_a, "factors"_a, "constant"_a, "out"_a)
        .def("deal_choice", &Kernels::deal_choice, "bits"_a, "b0"_a, "b1"_a, "x0"_a, "x1"_a, "a"_a, "d"_a, "out"_a,
             "second"_a)
        .def("choose", &Kernels::choose, "bits"_a, "c"_a, "x0"_a, "x1"_a.none(), "other"_a, "a"_a, "d"_a, "out"_a)
        .def("chacha20", &Kernels::chacha20, "key"_a, "nonce"_a, "out"_a);
}
