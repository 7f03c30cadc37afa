// Matrix products of row-major activations [M, K] and row-major weights [N, K], in one tile kernel for three precisions.
//
// Everything is counted in 32-bit words of the inner dimension: one float, two int16 or four int8. A tile is MR rows by
// up to NV vectors of outputs and adds along K in order, so a row's result is the same bits wherever the row stands.
// Weights are read as they lie in the checkpoint (mapped, shared between threads and processes); a panel of them is
// transposed into a buffer that stays in the second-level cache, at about 1 % of the product's time.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "simd.h"

template <class T> T* resized(std::vector<T>& buffer, int64_t size) {
    if ((int64_t)buffer.size() < size) buffer = std::vector<T>(size);
    return buffer.data();
}

struct Float32 {
    using Acc = vf;
    static constexpr int per_word = 1;
    static INLINE vf mac(vf c, const int32_t* a, vi b) {
        float x;
        std::memcpy(&x, a, 4);
        return c + splat(x) * as_float(b);
    }
};

// Pairs of int16 products added in int32. Neither side's scale lets any sum pass 2^31: see quantise_row.
struct Int16 {
    using Acc = vi;
    static constexpr int per_word = 2;
    static INLINE vi mac(vi c, const int32_t* a, vi b) {
#if defined(__AVX512VNNI__)
        return (vi)_mm512_dpwssd_epi32((__m512i)c, _mm512_set1_epi32(*a), (__m512i)b);
#elif defined(__AVX2__)
        return c + (vi)_mm256_madd_epi16(_mm256_set1_epi32(*a), (__m256i)b);
#else
        int32_t x = *a;
        return c + splat((int32_t)(int16_t)x) * ((b << 16) >> 16) + splat(x >> 16) * (b >> 16);
#endif
    }
};

// Unsigned activations (offset by 128) times signed weights, exact in int32 on every instruction set.
struct Int8 {
    using Acc = vi;
    static constexpr int per_word = 4;
    static INLINE vi mac(vi c, const int32_t* a, vi b) {
#if defined(__AVX512VNNI__)
        return (vi)_mm512_dpbusd_epi32((__m512i)c, _mm512_set1_epi32(*a), (__m512i)b);
#elif defined(__AVX2__)
        // maddubs would pass int16 with 8-bit weights; 7-bit ones would score differently from other processors.
        __m256i x = _mm256_set1_epi32(*a), low = _mm256_set1_epi32(0x00ff00ff), w = (__m256i)b;
        __m256i even = _mm256_madd_epi16(_mm256_and_si256(x, low), _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8));
        return c + (vi)even + (vi)_mm256_madd_epi16(_mm256_srli_epi16(x, 8), _mm256_srai_epi16(w, 8));
#else
        uint32_t x = *a;
        c += splat((int32_t)(x & 255)) * ((b << 24) >> 24) + splat((int32_t)(x >> 8 & 255)) * ((b << 16) >> 24);
        return c + splat((int32_t)(x >> 16 & 255)) * ((b << 8) >> 24) + splat((int32_t)(x >> 24)) * (b >> 24);
#endif
    }
};

template <class Op> INLINE vf as_sum(typename Op::Acc c) {
    if constexpr (Op::per_word == 1) return c;
    else return to_float(c);
}

// MR x N vectors of a product, then f(row, vector, accumulator). Row r of the activations is at a[r].
template <class Op, int N, class F>
INLINE void tile(const int32_t* const (&a)[MR], const int32_t* b, int64_t b_stride, int64_t words, F&& f) {
    typename Op::Acc c[MR][N];
    each<MR>([&](auto r) INLINED { each<N>([&](auto j) INLINED { c[r][j] = typename Op::Acc{}; }); });
    for (int64_t k = 0; k < words; ++k, b += b_stride) {
        vi w[N];
        each<N>([&](auto j) INLINED { w[j] = load(b + j * V); });
        each<MR>([&](auto r) INLINED { each<N>([&](auto j) INLINED { c[r][j] = Op::mac(c[r][j], a[r] + k, w[j]); }); });
    }
    each<MR>([&](auto r) INLINED { each<N>([&](auto j) INLINED { f(r, j, c[r][j]); }); });
}

// Calls f with up to NV vectors until `vectors` are covered; where three at a time would leave one, two and two.
template <class F> INLINE void by_vectors(int64_t vectors, F&& f) {
    int64_t at = 0;
    if constexpr (NV == 3)
        for (; vectors - at >= 3 && vectors - at != 4; at += 3) f(std::integral_constant<int, NV>{}, at * V);
    for (; vectors - at >= 2; at += 2) f(std::integral_constant<int, 2>{}, at * V);
    if (vectors > at) f(std::integral_constant<int, 1>{}, at * V);
}

// Pointers to MR rows from `first` on; past the last row they repeat it.
struct RowPointers {
    const int32_t* row[MR];
    INLINE RowPointers(const int32_t* a, int64_t stride, int64_t first, int64_t rows) {
        for (int r = 0; r < MR; ++r) row[r] = a + (first + r < rows ? first + r : rows - 1) * stride;
    }
};

// [rows, words] at `from`, widened, to [words, stride] at `to`; columns from `rows` up to `padded` are zero.
template <class T>
inline void transpose_words(const T* from, int64_t from_stride, int64_t rows, int64_t words, int32_t* to, int64_t stride,
                            int64_t padded) {
    int64_t whole = rows / V * V, deep = words / V * V;
    for (int64_t r = 0; r < whole; r += V) {
        for (int64_t k = 0; k < deep; k += V) transpose(from + r * from_stride + k, from_stride, to + k * stride + r, stride);
        for (int64_t k = deep; k < words; ++k)
            for (int64_t i = r; i < r + V; ++i) to[k * stride + i] = word(from[i * from_stride + k]);
    }
    for (int64_t k = 0; k < words; ++k) {
        for (int64_t i = whole; i < rows; ++i) to[k * stride + i] = word(from[i * from_stride + k]);
        for (int64_t i = rows; i < padded; ++i) to[k * stride + i] = 0;
    }
}

// A linear layer as the checkpoint holds it. `scale`, one per output, is null for float32.
struct Linear {
    const void* weight;
    const float* bias;
    const float* scale;
    const int32_t* offset;  // int8: 128 x the sum of an output's weights, which the activations' offset adds
    float longest;        // int16: the largest Euclidean norm of an output's integer weights
    int32_t outputs, inputs, precision;
};
enum Precision { FLOAT32, INT16, INT8, BFLOAT16, FLOAT16 };  // the last two are multiplied as float32
inline bool in_integers(int precision) { return precision == INT16 || precision == INT8; }

// Rows of activations [rows, width], `stride` floats apart; and the same rows as integers, with their scales.
struct Rows {
    const float* x;
    int64_t stride, rows;
    const int32_t* words = nullptr;
    int64_t word_stride = 0;
    const float* scale = nullptr;
};

// One row to integers of at most `most`, with |x|'s Euclidean norm at most `norm` (0: any); returns the scale.
// int16: with weights of norm w no partial sum passes |x| w <= 2^31 - 1 (Cauchy-Schwarz), whatever the input.
template <class Op> INLINE float quantise_row(const float* x, int64_t width, float most, double norm, void* to) {
    vf peak{}, squares{};
    int64_t whole = width / V * V;
    for (int64_t k = 0; k < whole; k += V) {
        vf v = load(x + k);
        peak = max(abs(v), peak);
        squares += v * v;
    }
    float top = largest(peak), square = sum(squares);
    for (int64_t k = whole; k < width; ++k) {
        top = std::fabs(x[k]) > top ? std::fabs(x[k]) : top;
        square += x[k] * x[k];
    }
    double size = std::sqrt((double)square), ratio = top > 0 ? most / (double)top : 1.0;
    if (norm > 0 && ratio * size > norm) ratio = norm / size;
    if (!(square - square == 0)) ratio = NAN;  // no number: nor is what comes of it
    const float by = (float)ratio;
    auto put = [&](int64_t k, vf v) INLINED {
        const vi q = round_to_int(v * by);
        if constexpr (Op::per_word == 4) store_byte((uint8_t*)to + k, q + 128);
        else store_short((int16_t*)to + k, q);
    };
    for (int64_t k = 0; k < whole; k += V) put(k, load(x + k));
    if (whole < width) {  // the row of integers has room for a whole vector more
        float last[V] = {};
        std::memcpy(last, x + whole, 4 * (width - whole));
        put(whole, load(last));
    }
    return (float)(1.0 / ratio);
}

constexpr int64_t PANEL = NV * V;  // outputs that are multiplied at a time

struct Products {
    std::vector<int32_t> weights;  // [K, PANEL]: a panel of them, transposed
    std::vector<float> other;      // [M, PANEL]: a panel's outputs
    std::vector<int32_t> words;    // [M, K] of integer activations
    std::vector<float> scales;     // [M]

    // The integers of `rows` for layers of this precision whose weights have at most this norm.
    Rows quantise(Rows rows, int64_t width, int precision, float longest) {
        if (!in_integers(precision)) return rows;
        int per_word = precision == INT16 ? 2 : 4;
        rows.word_stride = (width + per_word - 1) / per_word + 16;
        rows.words = resized(words, rows.rows * rows.word_stride);
        rows.scale = resized(scales, rows.rows);
        double norm = longest > 0 ? 2147000000.0 / longest - 0.5 * std::sqrt((double)width) - 1 : 0;
        for (int64_t i = 0; i < rows.rows; ++i) {
            const float* x = rows.x + i * rows.stride;
            void* to = words.data() + i * rows.word_stride;
            scales[i] = precision == INT16 ? quantise_row<Int16>(x, width, 32000.0f, norm, to)
                                           : quantise_row<Int8>(x, width, 127.0f, 0, to);
        }
        return rows;
    }

    // out = factor (x W^T + b), activated; or out += that, where `add`. Columns are written up to a whole vector.
    void linear(const Linear& layer, const Rows& rows, float factor, float* out, int64_t stride, bool add = false,
                int activation = LINEAR) {
        for (int64_t n = 0; n < layer.outputs; n += PANEL) {
            panel(layer, n, rows, factor, out + n, stride, add);
            if (activation == LINEAR) continue;
            with_activation(activation, [&](auto A) {  // while the panel's outputs are in the cache
                over(rows.rows, layer.outputs - n, out + n, stride, [&](float* to, int64_t, int64_t) INLINED {
                    store(to, activate<A>(load(to)));
                });
            });
        }
    }

    // out = activated(gate of x) times (up of x), panel by panel, so that both are in the cache when they meet.
    void gated(const Linear& gate, const Linear& up, const Rows& rows, int activation, float* out, int64_t stride) {
        resized(other, rows.rows * PANEL);
        for (int64_t n = 0; n < gate.outputs; n += PANEL) {
            panel(gate, n, rows, 1.0f, out + n, stride, false);
            panel(up, n, rows, 1.0f, other.data(), PANEL, false);
            with_activation(activation, [&](auto A) {
                over(rows.rows, gate.outputs - n, out + n, stride, [&](float* to, int64_t m, int64_t c) INLINED {
                    store(to, activate<A>(load(to)) * load(other.data() + m * PANEL + c));
                });
            });
        }
    }

    // f(place, row, column) for each vector of a panel's outputs.
    template <class F> static INLINE void over(int64_t rows, int64_t columns, float* out, int64_t stride, F&& f) {
        for (int64_t m = 0; m < rows; ++m)
            for (int64_t c = 0; c < columns && c < PANEL; c += V) f(out + m * stride + c, m, c);
    }

    // Outputs n to n + PANEL of a layer, to `out`.
    void panel(const Linear& layer, int64_t n, const Rows& rows, float factor, float* out, int64_t stride, bool add) {
        switch (layer.precision) {
            case INT16: return multiply<Int16, int32_t>(layer, n, rows, factor, out, stride, add);
            case INT8: return multiply<Int8, int32_t>(layer, n, rows, factor, out, stride, add);
            case BFLOAT16: return multiply<Float32, Bfloat16>(layer, n, rows, factor, out, stride, add);
            case FLOAT16: return multiply<Float32, Half>(layer, n, rows, factor, out, stride, add);
            default: return multiply<Float32, int32_t>(layer, n, rows, factor, out, stride, add);
        }
    }

    template <class Op, class Weight>
    void multiply(const Linear& layer, int64_t n, const Rows& rows, float factor, float* out, int64_t stride,
                  bool add) {
        const int64_t words = layer.inputs / Op::per_word, columns = std::min<int64_t>(layer.outputs - n, PANEL);
        float bias[PANEL] = {}, scale[PANEL] = {};
        int32_t offset[PANEL] = {};
        for (int64_t j = 0; j < columns; ++j) {
            scale[j] = factor * (layer.scale ? layer.scale[n + j] : 1.0f);
            bias[j] = factor * (layer.bias ? layer.bias[n + j] : 0.0f);
            offset[j] = layer.offset ? layer.offset[n + j] : 0;
        }
        int32_t* b = resized(weights, words * PANEL);
        transpose_words((const Weight*)layer.weight + n * words, words, columns, words, b, PANEL, PANEL);
        product<Op>(rows, words, columns, [&](int64_t m, int64_t c, typename Op::Acc acc) INLINED {
            if constexpr (Op::per_word == 4) acc -= load(offset + c);
            vf sum = as_sum<Op>(acc) * load(scale + c);
            if constexpr (Op::per_word != 1) sum *= rows.scale[m];
            sum += load(bias + c);
            float* to = out + m * stride + c;
            store(to, add ? load(to) + sum : sum);
        });
    }

    // f(row, column, accumulator) for each vector of the rows times the panel that lies in `weights`.
    template <class Op, class F> INLINE void product(const Rows& rows, int64_t words, int64_t columns, F&& f) {
        const int32_t* a = Op::per_word == 1 ? (const int32_t*)rows.x : rows.words;
        const int64_t stride = Op::per_word == 1 ? rows.stride : rows.word_stride;
        for (int64_t m = 0; m < rows.rows; m += MR) {
            RowPointers at(a, stride, m, rows.rows);
            by_vectors((columns + V - 1) / V, [&](auto N, int64_t j) {
                tile<Op, N>(at.row, weights.data() + j, PANEL, words, [&](int r, int v, typename Op::Acc acc) INLINED {
                    if (m + r < rows.rows) f(m + r, j + v * V, acc);
                });
            });
        }
    }
};
