// What encoders and decoders share between their matrix products: rows of floats, layer norm, residuals.
#pragma once
#include <algorithm>

#include "attention.h"

extern "C" {
struct Norm {
    const float *weight, *bias;
    float eps;
};
}

struct Matrix {  // [rows, width] floats with a stride that spreads over the cache, and room to read past the end
    std::vector<float> data;
    int64_t stride = 0;
    float* shape(int64_t rows, int64_t width) {
        stride = spread(width + NV * V);
        resized(data, rows * stride + 64);
        return data.data();
    }
    float* row(int64_t i) { return data.data() + i * stride; }
    Rows rows(int64_t count) const { return {data.data(), stride, count}; }
};

inline void normalise(float* x, int64_t width, const Norm& norm) {
    vf total{};
    const int64_t whole = width / V * V;
    for (int64_t k = 0; k < whole; k += V) total += load(x + k);
    float mean = sum(total);
    for (int64_t k = whole; k < width; ++k) mean += x[k];
    mean /= width;
    vf squares{};
    for (int64_t k = 0; k < whole; k += V) {
        vf y = load(x + k) - mean;
        squares += y * y;
    }
    float variance = sum(squares);
    for (int64_t k = whole; k < width; ++k) variance += (x[k] - mean) * (x[k] - mean);
    const float by = 1.0f / std::sqrt(variance / width + norm.eps);
    for (int64_t k = 0; k < width; ++k) x[k] = (x[k] - mean) * by * norm.weight[k] + norm.bias[k];
}

inline void project(Products& products, const Linear& layer, const Rows& rows, float factor, Matrix& out,
                    int activation = LINEAR) {
    out.shape(rows.rows, layer.outputs);
    products.linear(layer, rows, factor, out.data.data(), out.stride, false, activation);
}

// x = norm(x + W rows + b)
inline void add_and_normalise(Products& products, const Linear& layer, const Rows& rows, const Norm& norm, float* x,
                              int64_t stride) {
    products.linear(layer, rows, 1.0f, x, stride, true);
    for (int64_t i = 0; i < rows.rows; ++i) normalise(x + i * stride, layer.outputs, norm);
}

static INLINE float dot(const float* a, const float* b, int64_t width) {
    vf total{};
    const int64_t whole = width / V * V;
    for (int64_t k = 0; k < whole; k += V) total += load(a + k) * load(b + k);
    float rest = sum(total);
    for (int64_t k = whole; k < width; ++k) rest += a[k] * b[k];
    return rest;
}
static INLINE void add_scaled(float* to, const float* x, float by, int64_t width) {
    for (int64_t k = 0; k < width; ++k) to[k] += x[k] * by;
}

inline void copy_rows(const Matrix& from, const int64_t* place, int64_t count, int64_t width, Matrix& to) {
    to.shape(count, width);
    for (int64_t t = 0; t < count; ++t) std::memcpy(to.row(t), from.data.data() + (place ? place[t] : t) * from.stride, 4 * width);
}
