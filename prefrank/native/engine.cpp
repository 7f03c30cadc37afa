// Scores of packed rows: a whole encoder over plain buffers, behind a C interface.
//
// It mirrors the encoders of model/families/, to which tests hold it to 1e-5. Nothing here is shared between calls but
// weights, so any number of threads may score at once, one chunk each.
// The last layer is computed for each row's first token alone, which is all that is pooled. Its keys and
// values are not: with one query a head, q.(W x) is (W^T q).x, and the mix of W x is W times the mix of x. Where a model
// knows no absolute positions, layer 0 projects each distinct token once.
#include <new>
#include <unordered_map>

#include "blocks.h"

extern "C" {
struct Layer {
    Linear query, key, value, attention_output, up, down;
    Norm attention_norm, output_norm;
    Relative position_keys, position_queries;  // words null: none
};
struct Embeddings {
    const float *words, *positions, *types;
    Linear projection;  // weight null: none
    Norm norm;
    int32_t width, first_position, typed, projected_first;
};
struct Model {
    int32_t width, heads, inner, layers, activation, head_activation, conv_activation, conv_kernel, positionless, integers;
    float scale;
    Embeddings embeddings;
    const Layer* layer;
    Linear convolution;  // [D, kernel x D], weight null: none
    Norm convolution_norm;
    Linear dense, output;
    // The last layer's, in float32: [D, D] with biases, relative tables [S, D], and W_k^T PQ by head and row [H, S, D].
    const float *last_key, *last_key_bias, *last_value, *last_value_bias;
    const float *last_position_keys, *last_position_queries, *last_positions;
    const float* biases;  // MPNet's, [S, heads], null: none
    int32_t relative_rows;
};
}

struct Work {
    Matrix x, embedded, q, k, v, mixed, h, y, unfolded, firsts;
    Products products;
    Attention<Float32> exact;
    Attention<Int16> integer;
    Biases biases;
    std::vector<int64_t> distinct, place;
    std::vector<float> folded, scores, reading;
};

// The feed-forward block in slices of rows, so that the wide tensor between its two matrices stays in the cache.
static void feed_forward(const Layer& layer, int activation, Work& work, Matrix& x, int64_t count) {
    constexpr int64_t slice = 512;
    for (int64_t from = 0; from < count; from += slice) {
        const int64_t here = std::min(slice, count - from);
        Products& p = work.products;
        Rows in = p.quantise({x.row(from), x.stride, here}, layer.up.inputs, layer.up.precision, layer.up.longest);
        project(p, layer.up, in, 1.0f, work.h, activation);
        Rows inner = p.quantise(work.h.rows(here), layer.down.inputs, layer.down.precision, layer.down.longest);
        add_and_normalise(p, layer.down, inner, layer.output_norm, x.row(from), x.stride);
    }
}

static void embed(const Model& m, Work& w, const int64_t* ids, const int64_t* positions, const int64_t* types,
                  int64_t count, Matrix& out) {
    const Embeddings& e = m.embeddings;
    const bool projected = e.projection.weight;
    Matrix& first = projected ? w.y : out;
    first.shape(count, e.width);
    for (int64_t t = 0; t < count; ++t) {
        const float* word = e.words + ids[t] * e.width;
        const float* place = e.positions ? e.positions + (positions[t] + e.first_position) * e.width : nullptr;
        const float* type = e.types ? e.types + (e.typed ? types[t] : 0) * e.width : nullptr;
        float* x = first.row(t);
        for (int64_t k = 0; k < e.width; ++k) x[k] = word[k] + (type ? type[k] : 0.0f) + (place ? place[k] : 0.0f);
        if (!(projected && e.projected_first)) normalise(x, e.width, e.norm);
    }
    if (!projected) return;
    project(w.products, e.projection, first.rows(count), 1.0f, out);
    if (e.projected_first) for (int64_t t = 0; t < count; ++t) normalise(out.row(t), m.width, e.norm);
}

static void project_heads(const Layer& layer, float scale, Work& w, const Rows& rows) {
    const float longest = std::max({layer.query.longest, layer.key.longest, layer.value.longest});
    Rows in = w.products.quantise(rows, layer.query.inputs, layer.query.precision, longest);
    project(w.products, layer.query, in, scale, w.q);
    project(w.products, layer.key, in, 1.0f, w.k);
    project(w.products, layer.value, in, 1.0f, w.v);
}

template <class Op>
static void attend(const Model& m, const Layer& layer, Attention<Op>& attention, Work& w, const int64_t* starts,
                   int64_t rows, const int32_t* row_of, int64_t longest) {
    const int64_t d = m.width / m.heads;
    int64_t most = 0;
    for (int64_t n = 0; n < rows; ++n) most = std::max(most, starts[n + 1] - starts[n]);
    attention.lay_positions(layer.position_keys, layer.position_queries, m.heads, d, row_of, longest, most);
    for (int64_t h = 0; h < m.heads; ++h)
        for (int64_t n = 0; n < rows; ++n) {
            const int64_t t = starts[n], at = t * w.q.stride + h * d;
            attention.head(w.q.data.data() + at, w.k.data.data() + at, w.v.data.data() + at, w.q.stride,
                           w.mixed.data.data() + t * w.mixed.stride + h * d, w.mixed.stride, starts[n + 1] - t, d, h,
                           layer.position_keys.words, layer.position_queries.words, m.biases ? w.biases.at(h) : nullptr);
        }
}

static void convolve(const Model& m, Work& w, const int64_t* starts, int64_t rows) {
    const int64_t width = m.width, half = m.conv_kernel / 2, count = starts[rows];
    w.unfolded.shape(count, m.conv_kernel * width);
    for (int64_t n = 0; n < rows; ++n)
        for (int64_t t = starts[n]; t < starts[n + 1]; ++t)
            for (int64_t k = 0; k < m.conv_kernel; ++k) {
                const int64_t from = t + k - half;
                float* to = w.unfolded.row(t) + k * width;
                if (from < starts[n] || from >= starts[n + 1]) std::memset(to, 0, 4 * width);
                else std::memcpy(to, w.embedded.row(from), 4 * width);
            }
    project(w.products, m.convolution, w.unfolded.rows(count), 1.0f, w.y, m.conv_activation);
    for (int64_t t = 0; t < count; ++t) {
        for (int64_t k = 0; k < width; ++k) w.x.row(t)[k] += w.y.row(t)[k];
        normalise(w.x.row(t), width, m.convolution_norm);
    }
}

// One row of the last layer: its first token's query q against all tokens x, mixed into `out`.
static void attend_first(const Model& m, Work& w, const float* q, const float* x, int64_t stride,
                         int64_t length, const int32_t* row_of, int64_t longest, float* out) {
    const int64_t width = m.width, d = width / m.heads, wide = whole_vectors(length);
    float* folded = resized(w.folded, width);
    float* scores = resized(w.scores, wide);
    float* reading = resized(w.reading, width);
    for (int64_t h = 0; h < m.heads; ++h) {
        std::fill(folded, folded + width, 0.0f);
        for (int64_t c = 0; c < d; ++c) add_scaled(folded, m.last_key + (h * d + c) * width, q[h * d + c], width);
        for (int64_t j = 0; j < length; ++j) {
            const float* side = folded;
            float extra = 0;
            const int64_t place = row_of ? row_of[longest - j] : 0;
            if (m.last_position_queries) {
                const float* by_place = m.last_positions + (h * m.relative_rows + place) * width;
                for (int64_t k = 0; k < width; ++k) reading[k] = folded[k] + by_place[k];
                side = reading;
                extra = dot(m.last_key_bias + h * d, m.last_position_queries + place * width + h * d, d);
            }
            if (m.last_position_keys) extra += dot(q + h * d, m.last_position_keys + place * width + h * d, d);
            if (m.biases) extra += m.biases[place * m.heads + h];
            scores[j] = dot(x + j * stride, side, width) + extra;
        }
        const float by = 1.0f / Attention<Float32>::exponentials(scores, length, wide);
        std::fill(reading, reading + width, 0.0f);
        for (int64_t j = 0; j < length; ++j) add_scaled(reading, x + j * stride, scores[j] * by, width);
        for (int64_t c = 0; c < d; ++c)
            out[h * d + c] = dot(reading, m.last_value + (h * d + c) * width, width) + m.last_value_bias[h * d + c];
    }
}

static void last_layer(const Model& m, const Layer& layer, Work& w, const int64_t* starts, int64_t rows,
                       const int32_t* row_of, int64_t longest) {
    copy_rows(w.x, starts, rows, m.width, w.firsts);
    Products& p = w.products;
    project(p, layer.query, p.quantise(w.firsts.rows(rows), m.width, layer.query.precision, layer.query.longest), m.scale, w.q);
    w.mixed.shape(rows, m.width);
    for (int64_t n = 0; n < rows; ++n)
        attend_first(m, w, w.q.row(n), w.x.row(starts[n]), w.x.stride, starts[n + 1] - starts[n], row_of, longest,
                     w.mixed.row(n));
    const Linear& out = layer.attention_output;
    Rows mixed = p.quantise(w.mixed.rows(rows), m.width, out.precision, out.longest);
    add_and_normalise(p, out, mixed, layer.attention_norm, w.firsts.row(0), w.firsts.stride);
    feed_forward(layer, m.activation, w, w.firsts, rows);
}

static void score(const Model* model, const int64_t* ids, const int64_t* positions, const int64_t* types,
                  const int64_t* starts, int64_t rows, const int32_t* row_of, int64_t longest, float* scores) {
    static thread_local Work w;
    const Model& m = *model;
    const int64_t count = starts[rows];
    if (m.biases) w.biases.lay(m.biases, m.heads, row_of, longest);
    for (int32_t number = 0; number < m.layers; ++number) {
        const Layer& layer = m.layer[number];
        if (number == 0 && m.positionless) {
            std::unordered_map<int64_t, int64_t> seen;
            w.place.resize(count);
            w.distinct.clear();
            for (int64_t t = 0; t < count; ++t) {
                auto [at, fresh] = seen.try_emplace(ids[t], (int64_t)w.distinct.size());
                if (fresh) w.distinct.push_back(ids[t]);
                w.place[t] = at->second;
            }
            const int64_t few = w.distinct.size();
            embed(m, w, w.distinct.data(), nullptr, nullptr, few, w.firsts);
            copy_rows(w.firsts, w.place.data(), count, m.width, w.x);
            if (m.layers > 1) {
                project_heads(layer, m.scale, w, w.firsts.rows(few));
                for (Matrix* each : {&w.q, &w.k, &w.v}) {
                    copy_rows(*each, w.place.data(), count, m.width, w.y);
                    std::swap(*each, w.y);
                }
            }
        } else {
            if (number == 0) embed(m, w, ids, positions, types, count, w.x);
            if (number < m.layers - 1) project_heads(layer, m.scale, w, w.x.rows(count));
        }
        if (number == m.layers - 1) {
            last_layer(m, layer, w, starts, rows, row_of, longest);
            break;
        }
        if (number == 0 && m.convolution.weight) copy_rows(w.x, nullptr, count, m.width, w.embedded);
        w.mixed.shape(count, m.width);
        if (m.integers) attend(m, layer, w.integer, w, starts, rows, row_of, longest);
        else attend(m, layer, w.exact, w, starts, rows, row_of, longest);
        const Linear& out = layer.attention_output;
        Rows mixed = w.products.quantise(w.mixed.rows(count), m.width, out.precision, out.longest);
        add_and_normalise(w.products, out, mixed, layer.attention_norm, w.x.row(0), w.x.stride);
        feed_forward(layer, m.activation, w, w.x, count);
        if (number == 0 && m.convolution.weight) convolve(m, w, starts, rows);
    }
    project(w.products, m.dense, w.firsts.rows(rows), 1.0f, w.y, m.head_activation);
    for (int64_t n = 0; n < rows; ++n)
        scores[n] = dot(w.y.row(n), (const float*)m.output.weight, m.width) + (m.output.bias ? m.output.bias[0] : 0.0f);
}

extern "C" {
// Scores of `rows` rows, the tokens of row n from starts[n] to starts[n + 1]; 0, or 1 where memory ran out.
// row_of[distance + longest] is the row of the relative tables for -longest .. longest (null without relative positions).
int32_t prefrank_score(const Model* model, const int64_t* ids, const int64_t* positions, const int64_t* types,
                       const int64_t* starts, int64_t rows, const int32_t* row_of, int64_t longest, float* scores) {
    try {
        score(model, ids, positions, types, starts, rows, row_of, longest, scores);
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

// out = x W^T + b, for tests and for measuring what the tiles reach; out's rows hold whole vectors.
void prefrank_multiply(const Linear* layer, const float* x, int64_t stride, int64_t rows, float* out, int64_t out_stride) {
    static thread_local Products products;
    Rows in = products.quantise({x, stride, rows}, layer->inputs, layer->precision, layer->longest);
    products.linear(*layer, in, 1.0f, out, out_stride);
}

// Changes with the layout of the structures that Python fills.
int64_t prefrank_sizes() { return sizeof(Model) + 1000 * sizeof(Layer); }

// What this processor can run: 0 any code, 1 AVX2, 2 AVX-512 with VNNI.
int32_t prefrank_processor() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_cpu_init();
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vnni");
    if (wide) return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}
}
