// Vectors of 32-bit lanes, as wide as the instruction set this file is compiled for.
//
// GCC's and clang's vector extensions carry everything that has an operator; intrinsics stand only where there is none.
// The same source compiled with other flags is another library: portable (16 bytes), AVX2 (32), AVX-512 (64).
#pragma once
#include <cstdint>
#include <cstring>
#include <utility>
#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int V = 16;  // lanes of a vector
constexpr int MR = 8, NV = 3;  // a tile: rows by vectors, 24 accumulators of 32 registers
#elif defined(__AVX2__)
constexpr int V = 8;
constexpr int MR = 6, NV = 2;  // 12 of 16, as integer products need one more
#else
constexpr int V = 4;
constexpr int MR = 4, NV = 2;
#endif

typedef float vf __attribute__((vector_size(4 * V)));
typedef int32_t vi __attribute__((vector_size(4 * V)));
#define INLINE inline __attribute__((always_inline))
#define INLINED __attribute__((always_inline))  // of a lambda

INLINE vf load(const float* p) { vf x; std::memcpy(&x, p, sizeof x); return x; }
INLINE vi load(const int32_t* p) { vi x; std::memcpy(&x, p, sizeof x); return x; }
INLINE void store(float* p, vf x) { std::memcpy(p, &x, sizeof x); }
INLINE void store(int32_t* p, vi x) { std::memcpy(p, &x, sizeof x); }
INLINE vf splat(float x) { return x - vf{}; }
INLINE vi splat(int32_t x) { return x - vi{}; }
INLINE vf as_float(vi x) { vf y; std::memcpy(&y, &x, sizeof y); return y; }
INLINE vi as_int(vf x) { vi y; std::memcpy(&y, &x, sizeof y); return y; }
INLINE vf to_float(vi x) { return __builtin_convertvector(x, vf); }
INLINE vf max(vf a, vf b) { return a > b ? a : b; }
// NaN stays NaN, so that a broken weight is seen in the score.
INLINE vf clamp(vf x, float low, float high) {
    x = x > splat(high) ? splat(high) : x;
    return x < splat(low) ? splat(low) : x;
}
INLINE vf abs(vf x) { return as_float(as_int(x) & 0x7fffffff); }

// To the nearest whole number, for |x| < 2^22: adding 1.5 x 2^23 leaves it in the low bits.
INLINE vi round_to_int(vf x) { return as_int(x + 12582912.0f) - 0x4b400000; }

// Lane i of the result is lane places[i] of the 2V lanes of a and b.
template <int... I> INLINE vi pick(vi a, vi b, std::integer_sequence<int, I...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, I...);
#else
    return __builtin_shuffle(a, b, vi{I...});
#endif
}
template <int half, int... I> INLINE vi lower(vi a, vi b, std::integer_sequence<int, I...>) {
    return pick(a, b, std::integer_sequence<int, (I & half ? V + I - half : I)...>{});
}
template <int half, int... I> INLINE vi upper(vi a, vi b, std::integer_sequence<int, I...>) {
    return pick(a, b, std::integer_sequence<int, (I & half ? V + I : I + half)...>{});
}
template <int half, int... I> INLINE vi swapped(vi a, std::integer_sequence<int, I...>) {
    return pick(a, a, std::integer_sequence<int, (I ^ half)...>{});
}
using Lanes = std::make_integer_sequence<int, V>;
template <int... I> INLINE vi counted(std::integer_sequence<int, I...>) { return vi{I...}; }

// The sum of all lanes, always in the same order.
INLINE float sum(vf x) {
    if constexpr (V > 8) x += as_float(swapped<8>(as_int(x), Lanes{}));
    if constexpr (V > 4) x += as_float(swapped<4>(as_int(x), Lanes{}));
    x += as_float(swapped<2>(as_int(x), Lanes{}));
    x += as_float(swapped<1>(as_int(x), Lanes{}));
    return x[0];
}
typedef int16_t Shorts __attribute__((vector_size(2 * V)));
typedef uint8_t Bytes __attribute__((vector_size(V)));
INLINE void store_short(void* p, vi x) { Shorts y = __builtin_convertvector(x, Shorts); std::memcpy(p, &y, sizeof y); }
INLINE void store_byte(void* p, vi x) { Bytes y = __builtin_convertvector(x, Bytes); std::memcpy(p, &y, sizeof y); }

// 16-bit weights as files hold them, and the float32 word that each stands for: exactly, subnormals and NaN included.
struct Bfloat16 { uint16_t bits; };
struct Half { uint16_t bits; };
INLINE int32_t word(int32_t x) { return x; }
INLINE int32_t word(Bfloat16 x) { return (int32_t)((uint32_t)x.bits << 16); }
INLINE vi widened(const void* p) {
    typedef uint16_t Words __attribute__((vector_size(2 * V)));
    Words x;
    std::memcpy(&x, p, sizeof x);
    return __builtin_convertvector(x, vi);
}
INLINE vi load(const Bfloat16* p) { return widened(p) << 16; }
INLINE vi load(const Half* p) {
    const vi x = widened(p), size = (x & 0x7fff) << 13;
    const vi infinite = size >= splat(0x0f800000) ? splat(0x7f800000) : vi{};
    return as_int(as_float(size) * 0x1p112f) | infinite | (x & 0x8000) << 16;
}
INLINE int32_t word(Half x) {
    Half all[V] = {x};
    return load(all)[0];
}

// The largest lane; any where one is NaN.
INLINE float largest(vf x) {
    if constexpr (V > 8) x = max(x, as_float(swapped<8>(as_int(x), Lanes{})));
    if constexpr (V > 4) x = max(x, as_float(swapped<4>(as_int(x), Lanes{})));
    x = max(x, as_float(swapped<2>(as_int(x), Lanes{})));
    x = max(x, as_float(swapped<1>(as_int(x), Lanes{})));
    return x[0];
}

// Loops that must be unrolled: over registers, so that no accumulator goes to memory. GCC 12's `#pragma GCC unroll`
// over an array of accumulators stores all of them in every step; a fold expression does not.
template <int... I, class F> INLINE void each_of(std::integer_sequence<int, I...>, F&& f) {
    (f(std::integral_constant<int, I>{}), ...);
}
template <int N, class F> INLINE void each(F&& f) { each_of(std::make_integer_sequence<int, N>{}, f); }

// e^x by 2^n times a polynomial on [-ln2/2, ln2/2]; relative error 2e-7; 0 below -87.
INLINE vf exp(vf x) {
    x = clamp(x, -87.3f, 88.0f);
    vi n = round_to_int(x * 1.44269504f);
    vf whole = to_float(n);
    vf r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    vf p = r * (1.0f / 5040) + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r * r + r + 1.0f;
    return p * as_float((n + 127) << 23);
}
INLINE vf sigmoid(vf x) { return 1.0f / (1.0f + exp(-x)); }
INLINE vf tanh(vf x) { return 1.0f - 2.0f / (1.0f + exp(2.0f * x)); }

// erf as x P(x^2) / Q(x^2) on [-4, 4], fitted by iterated weighted least squares; error 2e-8 before rounding.
INLINE vf erf(vf x) {
    x = clamp(x, -4.0f, 4.0f);
    vf t = x * x;
    vf p = t * 1.9749325e-06f + 0.000288021722f;
    p = p * t + 0.00400287379f;
    p = p * t + 0.0534650907f;
    p = p * t + 0.196231216f;
    p = p * t + 1.12837899f;
    vf q = t * 3.7480906e-05f + 0.0012161684f;
    q = q * t + 0.0154428799f;
    q = q * t + 0.116469048f;
    q = q * t + 0.50723654f;
    q = q * t + 1.0f;
    return x * p / q;
}

// The activations of config.json, numbered as in native.py.
enum Activation { GELU, GELU_TANH, RELU, SILU, TANH, LINEAR, QUICK_GELU, SIGMOID };

template <int A> INLINE vf activate(vf x) {
    if constexpr (A == GELU) return 0.5f * x * (1.0f + erf(x * 0.707106781f));
    if constexpr (A == GELU_TANH) return 0.5f * x * (1.0f + tanh(0.797884561f * (x + 0.044715f * x * x * x)));
    if constexpr (A == RELU) return x < vf{} ? vf{} : x;
    if constexpr (A == SILU) return x * sigmoid(x);
    if constexpr (A == TANH) return tanh(x);
    if constexpr (A == QUICK_GELU) return x * sigmoid(1.702f * x);
    if constexpr (A == SIGMOID) return sigmoid(x);
    return x;
}

template <class F> inline void with_activation(int activation, F&& f) {
    switch (activation) {
        case GELU: return f(std::integral_constant<int, GELU>{});
        case GELU_TANH: return f(std::integral_constant<int, GELU_TANH>{});
        case RELU: return f(std::integral_constant<int, RELU>{});
        case SILU: return f(std::integral_constant<int, SILU>{});
        case TANH: return f(std::integral_constant<int, TANH>{});
        case QUICK_GELU: return f(std::integral_constant<int, QUICK_GELU>{});
        case SIGMOID: return f(std::integral_constant<int, SIGMOID>{});
        default: return f(std::integral_constant<int, LINEAR>{});
    }
}

// V x V words in registers: lane c of row r and lane r of row c change places. At each step rows `half` apart exchange
// their halves.
template <int half> INLINE void exchange(vi (&x)[V]) {
    if constexpr (V > half)
        each<V>([&](auto r) INLINED {
            if constexpr (!(r & half)) {
                const vi a = x[r], b = x[r + half];
                x[r] = lower<half>(a, b, Lanes{});
                x[r + half] = upper<half>(a, b, Lanes{});
            }
        });
}
INLINE void transpose_lanes(vi (&x)[V]) {
    exchange<8>(x);
    exchange<4>(x);
    exchange<2>(x);
    exchange<1>(x);
}

// Row r of the V x V block at `from` becomes column r at `to`.
template <class T> INLINE void transpose(const T* from, int64_t from_stride, int32_t* to, int64_t to_stride) {
    vi x[V];
    each<V>([&](auto r) INLINED { x[r] = load(from + r * from_stride); });
    transpose_lanes(x);
    each<V>([&](auto r) INLINED { store(to + r * to_stride, x[r]); });
}
