// Causal attention of packed trees: grouped queries against the gathered keys and values of their rows.
//
// The keys on a path from a root are turned once into a panel whose column is their position, the values gathered beside
// it; the next path keeps what it has in common with the last one. Queries of a group's heads stand as rows, position by
// position, so that a tile is full even where a segment has few tokens. A query's sums go over the keys that it sees,
// in order and in lanes by position, plus exact zeros: nothing of them depends on where its segment begins or what
// stands beside it.
#pragma once
#include "blocks.h"

// Queries of one segment: `count` of them from row `row` of the queries on, the first at `position`. The first `common`
// tokens of its path are those of the visit before.
struct Visit {
    int64_t segment, common, row, position, count;
};

// Where the tokens of each path lie: segment s is tokens starts[s] to starts[s + 1], at positions from bases[s] on.
struct Paths {
    const int64_t *starts, *parents, *bases;
    int64_t size(int64_t s) const { return starts[s + 1] - starts[s]; }
    int64_t length(int64_t s) const { return bases[s] + size(s); }
};

// Tokens that the paths to two segments have in common; parents come before their children.
inline int64_t common_tokens(const Paths& paths, int64_t a, int64_t b) {
    while (a != b) (a > b ? a : b) = paths.parents[a > b ? a : b];
    return a < 0 ? 0 : paths.length(a);
}

struct GroupedAttention {
    std::vector<int32_t> keys;   // [head width, longest path], by position
    std::vector<float> values;   // [longest path, head width], in whole vectors
    std::vector<float> scores, inverses;
    int64_t width = 0, wide = 0, stride = 0;  // of a head, of it in whole vectors, of `keys`

    // Attention of all heads. `window` keys up to its own are seen by a query, all where it is 0.
    void run(const Paths& paths, const std::vector<Visit>& visits, const Matrix& q, const Matrix& k, const Matrix& v,
             int64_t heads, int64_t kv_heads, int64_t head_width, int64_t window, Matrix& out) {
        int64_t longest = 0;
        for (const Visit& visit : visits) longest = std::max(longest, paths.length(visit.segment));
        width = head_width, wide = whole_vectors(head_width), stride = spread(longest + V);
        resized(keys, width * stride), resized(values, longest * wide);
        const int64_t group = heads / kv_heads;
        for (int64_t h = 0; h < kv_heads; ++h)
            for (const Visit& visit : visits) {
                gather(paths, visit, k, v, h * width);
                attend(visit, q, group, h * group * width, window, out);
            }
    }

    // Channels from `channel` on of the tokens that the path does not have from the visit before.
    void gather(const Paths& paths, const Visit& visit, const Matrix& k, const Matrix& v, int64_t channel) {
        for (int64_t s = visit.segment; s >= 0 && paths.length(s) > visit.common; s = paths.parents[s]) {
            const int64_t from = paths.starts[s] * k.stride + channel, count = paths.size(s), base = paths.bases[s];
            transpose_words((const int32_t*)k.data.data() + from, k.stride, count, width, keys.data() + base, stride, count);
            for (int64_t i = 0; i < count; ++i)
                std::memcpy(values.data() + (base + i) * wide, v.data.data() + from + i * v.stride, 4 * width);
        }
    }

    // Row r of a visit is head r % group at position r / group. Blocks of rows whose scores stay in the cache.
    void attend(const Visit& visit, const Matrix& q, int64_t group, int64_t channel, int64_t window, Matrix& out) {
        const int64_t rows = visit.count * group, s_stride = spread(visit.position + visit.count + V);
        const int64_t block = std::max<int64_t>(MR, 32768 / s_stride / MR * MR);
        float* s = resized(scores, std::min(block, (rows + MR - 1) / MR * MR) * s_stride);
        float* inverse = resized(inverses, block);
        auto position = [&](int64_t r) INLINED { return visit.position + std::min(r, rows - 1) / group; };
        auto place = [&](int64_t r) INLINED { return visit.row + r / group; };
        auto begin = [&](int64_t r) INLINED { return window ? std::max<int64_t>(0, position(r) - window + 1) : 0; };
        for (int64_t r0 = 0; r0 < rows; r0 += block) {
            const int64_t end = std::min(r0 + block, rows);
            const int64_t last = position(end - 1);
            for (int64_t j = begin(r0) / V * V; j <= last; j += NV * V)
                for (int64_t r = r0; r < end; r += MR) {
                    const int64_t from = std::max(j, begin(r) / V * V), until = std::min(j + NV * V, position(r + MR - 1) + 1);
                    if (from >= until) continue;
                    const int32_t* at[MR];
                    for (int i = 0; i < MR; ++i) {
                        const int64_t one = std::min(r + i, rows - 1);
                        at[i] = (const int32_t*)q.data.data() + place(one) * q.stride + channel + one % group * width;
                    }
                    by_vectors((until - from + V - 1) / V, [&](auto N, int64_t c) {
                        float* to = s + (r - r0) * s_stride + from + c;
                        tile<Float32, N>(at, keys.data() + from + c, stride, width, [&](int i, int n, vf x) INLINED {
                            store(to + i * s_stride + n * V, x);
                        });
                    });
                }
            for (int64_t r = r0; r < end; r += MR) {
                const int64_t from = begin(r), until = position(r + MR - 1) + 1;
                float* x = s + (r - r0) * s_stride;
                for (int64_t i = r; i < std::min(r + MR, end); ++i)
                    inverse[i - r0] = 1.0f / probabilities(x + (i - r) * s_stride, begin(i), position(i) + 1, from, until);
                RowPointers at((const int32_t*)x + from, s_stride, 0, std::min<int64_t>(MR, end - r));
                by_vectors(wide / V, [&](auto N, int64_t c) {
                    const int32_t* b = (const int32_t*)values.data() + from * wide + c;
                    tile<Float32, N>(at.row, b, wide, until - from, [&](int i, int n, vf sum) INLINED {
                        if (r + i >= end) return;
                        const int64_t at = c + n * V;
                        float* to = out.row(place(r + i)) + channel + (r + i) % group * width + at;
                        Attention<Float32>::put(to, sum * inverse[r + i - r0], width - at);
                    });
                });
            }
        }
    }

    // x[begin:end] becomes e^(x - max), the rest of x[from:until] 0; returns the sum, added in lanes by position.
    static float probabilities(float* x, int64_t begin, int64_t end, int64_t from, int64_t until) {
        const int64_t first = begin / V * V, past = whole_vectors(end);
        std::fill(x + first, x + begin, -INFINITY);
        std::fill(x + end, x + past, -INFINITY);
        vf peak = load(x + first);
        for (int64_t j = first + V; j < past; j += V) peak = max(load(x + j), peak);
        const vf top = splat(largest(peak));
        vf total{};
        for (int64_t j = first; j < past; j += V) {
            const vf y = exp(load(x + j) - top);
            store(x + j, y);
            total += y;
        }
        std::fill(x + from, x + begin, 0.0f);
        for (int64_t j = end; j < until; ++j) x[j] = 0;
        return sum(total);
    }
};
