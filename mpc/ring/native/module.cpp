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
#include <vector>

#include "kernels.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using hush::Gemm;
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
                g.a0 = static_cast<const char *>(g.a0) + from * g.a_row * size;
                if (g.a1) g.a1 = static_cast<const char *>(g.a1) + from * g.a_row * size;
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

class Kernels {
  public:
    explicit Kernels(const std::string &isa) {
        for (const auto *set : supported()) {
            if (isa == set->name) table_ = set;
        }
        if (!table_) throw std::invalid_argument("this CPU has no instruction set " + isa);
    }

    std::string name() const { return table_->name; }

    void matmul(const Array &x0, const Pair &x1, const Array &y0, const Pair &y1, const Array &out, int64_t threads) const {
        const int width = width_of(x0);
        require(width_of(y0) == width && width_of(out) == width, "element types differ");
        require(x0.ndim() == 3 && y0.ndim() == 3 && out.ndim() == 3, "matmul takes [batch, rows, columns]");
        require(x1.has_value() == y1.has_value(), "one component or two, for both operands");
        require_like(x0, x1);
        require_like(y0, y1);
        const int64_t items = extent(x0, 0), m = extent(x0, 1), k = extent(x0, 2), n = extent(y0, 2);
        require(extent(y0, 0) == items && extent(y0, 1) == k, "operands do not fit each other");
        require(extent(out, 0) == items && extent(out, 1) == m && extent(out, 2) == n && contiguous(out), "wrong output");
        nb::gil_scoped_release unlocked;
        const auto row = ramp(k, y0.stride(1)), col = ramp(n, y0.stride(2));
        std::vector<Gemm> batch;
        for (int64_t i = 0; i < items; ++i) {
            batch.push_back({m, n, k, at(x0, i * x0.stride(0)), at(x1, i * x0.stride(0)), x0.stride(1), x0.stride(2),
                             at(y0, i * y0.stride(0)), at(y1, i * y0.stride(0)), row.data(), col.data(),
                             const_cast<char *>(at(out, i * m * n)), n, nullptr});
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
            batch.push_back({m, n, k, at(w0, w), at(w1, w), k, 1, at(x0, x), at(x1, x), row.data(), col.data(),
                             const_cast<char *>(at(out, item * m * n)), n, nullptr});
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

  private:
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

}  // namespace

NB_MODULE(_cpu, m) {
    m.def("supported", &names);
    nb::class_<Kernels>(m, "Kernels")
        .def(nb::init<const std::string &>(), "isa"_a)
        .def_prop_ro("isa", &Kernels::name)
        .def("matmul", &Kernels::matmul, "x0"_a, "x1"_a.none(), "y0"_a, "y1"_a.none(), "out"_a, "threads"_a)
        .def("conv", &Kernels::conv, "x0"_a, "x1"_a.none(), "w0"_a, "w1"_a.none(), "out"_a, "stride"_a, "dilation"_a,
             "groups"_a, "threads"_a)
        .def("cross_mul", &Kernels::cross_mul, "x0"_a, "x1"_a, "y0"_a, "y1"_a, "out"_a)
        .def("to_planes", &Kernels::to_planes, "elements"_a, "out"_a, "shift"_a)
        .def("from_planes", &Kernels::from_planes, "planes"_a, "out"_a)
        .def("spread", &Kernels::spread, "planes"_a, "out"_a);
}
