// Scores of packed trees of rows: a whole decoder over plain buffers, behind a C interface.
//
// It mirrors model/families/decoder.py, of which tests hold it to 1e-5. Every distinct token goes through the linear
// layers once. Of the last layer, keys and values are computed for all tokens, the rest for the scored ones alone.
// Nothing is shared between calls but weights, so any number of threads may score at once, one batch each.
#include <new>

#include "grouped_attention.h"

extern "C" {
struct DecoderLayer {
    Linear query, key, value, output, gate, up, down;
    const float *attention_norm, *feed_forward_norm, *query_norm, *key_norm;  // the last two null: none
    int64_t window;  // 0: none
};
struct Decoder {
    const DecoderLayer* layer;
    const void* words;  // of `words_precision`: FLOAT32, BFLOAT16 or FLOAT16
    const float* norm;
    Linear head;
    int32_t width, heads, kv_heads, head_width, layers, activation, words_precision, rotated;
    float scale, eps;
};
// T tokens in S segments (see prefrank/model/segments.py), of which N are scored at their ends: `leaves`, rising.
struct Trees {
    const int64_t *ids, *starts, *parents, *bases, *leaves;
    const float *cosines, *sines;  // [T, rotated]
    int64_t segments, rows;
};
}

struct DecoderWork {
    Matrix x, y, q, k, v, h, ends;
    Products products;
    GroupedAttention attention;
    std::vector<Visit> all, last;
};

// Rows go through the linear layers in slices, so that what one layer writes is in the cache for the next.
template <class F> static void by_slices(int64_t count, F&& f) {
    constexpr int64_t most = 1024;
    const int64_t slices = (count + most - 1) / most;
    for (int64_t i = 0; i < slices; ++i) {
        const int64_t from = count * i / slices;
        f(from, count * (i + 1) / slices - from);
    }
}

// to = x / sqrt(mean of x^2 + eps) * weight * factor
static INLINE void normalise_root(const float* x, int64_t width, const float* weight, float eps, float factor,
                                  float* to) {
    const int64_t whole = width / V * V;
    vf squares{};
    for (int64_t k = 0; k < whole; k += V) {
        const vf y = load(x + k);
        squares += y * y;
    }
    float square = sum(squares);
    for (int64_t k = whole; k < width; ++k) square += x[k] * x[k];
    const float by = factor / std::sqrt(square / width + eps);
    for (int64_t k = 0; k < width; ++k) to[k] = x[k] * by * weight[k];
}

static void normalise_rows(const Matrix& x, int64_t from, int64_t count, const Decoder& m, const float* weight,
                           Matrix& to) {
    to.shape(count, m.width);
    for (int64_t i = 0; i < count; ++i)
        normalise_root(x.data.data() + (from + i) * x.stride, m.width, weight, m.eps, 1.0f, to.row(i));
}

// The heads of one token: normed where there is a weight, then channel c turned with channel c + `rotated`.
static void turn(float* x, int64_t heads, const Decoder& m, const float* norm, float factor, const float* cosines,
                 const float* sines) {
    const int64_t half = m.rotated, whole = half / V * V;
    for (int64_t h = 0; h < heads; ++h, x += m.head_width) {
        if (norm) normalise_root(x, m.head_width, norm, m.eps, factor, x);
        for (int64_t c = 0; c < whole; c += V) {
            const vf a = load(x + c), b = load(x + half + c), cosine = load(cosines + c), sine = load(sines + c);
            store(x + c, a * cosine - b * sine);
            store(x + half + c, b * cosine + a * sine);
        }
        for (int64_t c = whole; c < half; ++c) {
            const float a = x[c], b = x[half + c];
            x[c] = a * cosines[c] - b * sines[c];
            x[half + c] = b * cosines[c] + a * sines[c];
        }
    }
}

static float longest(const DecoderLayer& layer) {
    return std::max({layer.query.longest, layer.key.longest, layer.value.longest});
}

// Queries of normed rows to the rows of w.q from `from` on; token_of(i) is the token of row i.
template <class F>
static void make_queries(const Decoder& m, const DecoderLayer& layer, DecoderWork& w, const Trees& trees,
                         const Rows& in, int64_t from, F&& token_of) {
    const float folded = layer.query_norm ? 1.0f : m.scale;
    w.products.linear(layer.query, in, folded, w.q.row(from), w.q.stride);
    for (int64_t i = from; i < from + in.rows; ++i) {
        const int64_t at = token_of(i) * m.rotated;
        turn(w.q.row(i), m.heads, m, layer.query_norm, m.scale, trees.cosines + at, trees.sines + at);
    }
}

static void make_keys_and_values(const Decoder& m, const DecoderLayer& layer, DecoderWork& w, const Trees& trees,
                                 const Rows& in, int64_t from) {
    w.products.linear(layer.key, in, 1.0f, w.k.row(from), w.k.stride);
    w.products.linear(layer.value, in, 1.0f, w.v.row(from), w.v.stride);
    for (int64_t i = from; i < from + in.rows; ++i) {
        const int64_t at = i * m.rotated;
        turn(w.k.row(i), m.kv_heads, m, layer.key_norm, 1.0f, trees.cosines + at, trees.sines + at);
    }
}

// x += output of what attention left in w.q; x += feed-forward of x, slice by slice.
static void finish(const Decoder& m, const DecoderLayer& layer, DecoderWork& w, Matrix& x, int64_t count) {
    Products& p = w.products;
    by_slices(count, [&](int64_t from, int64_t here) {
        const Linear &output = layer.output, &gate = layer.gate, &up = layer.up, &down = layer.down;
        const Rows seen{w.q.row(from), w.q.stride, here};
        const Rows mixed = p.quantise(seen, output.inputs, output.precision, output.longest);
        p.linear(output, mixed, 1.0f, x.row(from), x.stride, true);
        normalise_rows(x, from, here, m, layer.feed_forward_norm, w.y);
        const Rows in = p.quantise(w.y.rows(here), m.width, gate.precision, std::max(gate.longest, up.longest));
        w.h.shape(here, gate.outputs);
        p.gated(gate, up, in, m.activation, w.h.data.data(), w.h.stride);
        const Rows inner = p.quantise(w.h.rows(here), down.inputs, down.precision, down.longest);
        p.linear(down, inner, 1.0f, x.row(from), x.stride, true);
    });
}

template <class T> static void look_up(const T* words, const int64_t* ids, int64_t count, int64_t width, Matrix& x) {
    x.shape(count, width);
    for (int64_t t = 0; t < count; ++t)
        for (int64_t k = 0; k < width; ++k) {
            const int32_t bits = word(words[ids[t] * width + k]);
            std::memcpy(x.row(t) + k, &bits, 4);
        }
}

static void embed(const Decoder& m, const int64_t* ids, int64_t count, Matrix& x) {
    if (m.words_precision == BFLOAT16) look_up((const Bfloat16*)m.words, ids, count, m.width, x);
    else if (m.words_precision == FLOAT16) look_up((const Half*)m.words, ids, count, m.width, x);
    else look_up((const int32_t*)m.words, ids, count, m.width, x);
}

static void plan_visits(const Trees& trees, const Paths& paths, DecoderWork& w) {
    w.all.clear(), w.last.clear();
    for (int64_t s = 0; s < trees.segments; ++s)
        w.all.push_back({s, s ? common_tokens(paths, s - 1, s) : 0, paths.starts[s], paths.bases[s], paths.size(s)});
    for (int64_t n = 0; n < trees.rows; ++n) {
        const int64_t s = trees.leaves[n];
        w.last.push_back({s, n ? common_tokens(paths, trees.leaves[n - 1], s) : 0, n, paths.length(s) - 1, 1});
    }
}

static void score(const Decoder& m, const Trees& trees, float* scores) {
    static thread_local DecoderWork w;
    const int64_t count = trees.starts[trees.segments];
    const int64_t heads = m.heads * m.head_width, keys = m.kv_heads * m.head_width;
    const Paths paths{trees.starts, trees.parents, trees.bases};
    plan_visits(trees, paths, w);
    embed(m, trees.ids, count, w.x);
    auto end_of = [&](int64_t n) { return trees.starts[trees.leaves[n] + 1] - 1; };
    for (int32_t number = 0; number < m.layers; ++number) {
        const DecoderLayer& layer = m.layer[number];
        const bool last = number == m.layers - 1;
        const int64_t asked = last ? trees.rows : count;
        w.q.shape(asked, heads), w.k.shape(count, keys), w.v.shape(count, keys);
        auto normed = [&](const Matrix& x, int64_t from, int64_t here) {
            normalise_rows(x, from, here, m, layer.attention_norm, w.y);
            return w.products.quantise(w.y.rows(here), m.width, layer.query.precision, longest(layer));
        };
        by_slices(count, [&](int64_t from, int64_t here) {
            const Rows in = normed(w.x, from, here);
            make_keys_and_values(m, layer, w, trees, in, from);
            if (!last) make_queries(m, layer, w, trees, in, from, [](int64_t t) { return t; });
        });
        if (last) {
            w.ends.shape(trees.rows, m.width);
            for (int64_t n = 0; n < trees.rows; ++n) std::memcpy(w.ends.row(n), w.x.row(end_of(n)), 4 * m.width);
            by_slices(trees.rows, [&](int64_t from, int64_t here) {
                make_queries(m, layer, w, trees, normed(w.ends, from, here), from, end_of);
            });
        }
        const std::vector<Visit>& visits = last ? w.last : w.all;
        w.attention.run(paths, visits, w.q, w.k, w.v, m.heads, m.kv_heads, m.head_width, layer.window);
        finish(m, layer, w, last ? w.ends : w.x, asked);
    }
    normalise_rows(w.ends, 0, trees.rows, m, m.norm, w.y);
    for (int64_t n = 0; n < trees.rows; ++n)
        scores[n] = dot(w.y.row(n), (const float*)m.head.weight, m.width) + (m.head.bias ? m.head.bias[0] : 0.0f);
}

extern "C" {
// Scores at the ends of `rows` segments; 0, or 1 where memory ran out.
int32_t prefrank_score_decoder(const Decoder* model, const Trees* trees, float* scores) {
    try {
        score(*model, *trees, scores);
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

// Changes with the layout of the structures that Python fills.
int64_t prefrank_decoder_sizes() { return sizeof(Decoder) + 1000 * sizeof(DecoderLayer) + 1000000 * sizeof(Trees); }
}
