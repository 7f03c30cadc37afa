// Causal attention of packed trees: grouped queries against the gathered keys and values of their rows.
//
// The keys on a path from a root are turned once into a panel whose column is their position, the values gathered
// beside it; the next path keeps what it has in common with the last. Queries of a group's heads stand as rows,
// position by position, so that a tile is full even where a segment has few tokens. A query's sums go over the keys
// that it sees, in order and in lanes by position, plus exact zeros: nothing of them depends on where its segment
// begins or what stands beside it.
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

// A row of a visit: a head's query at one position, and the keys begin to end that it sees.
struct Query {
    float* x;
    int64_t begin, end;
};

struct GroupedAttention {
    std::vector<int32_t> keys;  // [head width, longest path], by position
    std::vector<float> values;  // [longest path, head width], in whole vectors
    std::vector<Query> queries;
    std::vector<float> scores;
    int64_t width = 0, wide = 0, stride = 0;  // of a head, of it in whole vectors, of `keys`

    // Attention of all heads: each query is replaced by its mix of values. It sees `window` keys up to its own; 0: all.
    void run(const Paths& paths, const std::vector<Visit>& visits, Matrix& q, const Matrix& k, const Matrix& v,
             int64_t heads, int64_t kv_heads, int64_t head_width, int64_t window) {
        int64_t longest = 0;
        for (const Visit& visit : visits) longest = std::max(longest, paths.length(visit.segment));
        width = head_width, wide = whole_vectors(head_width), stride = spread(longest + V);
        resized(keys, width * stride), resized(values, longest * wide);
        const int64_t group = heads / kv_heads;
        for (int64_t h = 0; h < kv_heads; ++h)
            for (const Visit& visit : visits) {
                gather(paths, visit, k, v, h * width);
                line_up(visit, q, group, h * group * width, window);
                attend();
            }
    }

    // Channels from `channel` on of the tokens that the path does not have from the visit before.
    void gather(const Paths& paths, const Visit& visit, const Matrix& k, const Matrix& v, int64_t channel) {
        for (int64_t s = visit.segment; s >= 0 && paths.length(s) > visit.common; s = paths.parents[s]) {
            const int64_t from = paths.starts[s] * k.stride + channel, count = paths.size(s), base = paths.bases[s];
            const int32_t* own = (const int32_t*)k.data.data() + from;
            transpose_words(own, k.stride, count, width, keys.data() + base, stride, count);
            for (int64_t i = 0; i < count; ++i)
                std::memcpy(values.data() + (base + i) * wide, v.data.data() + from + i * v.stride, 4 * width);
        }
    }

    void line_up(const Visit& visit, Matrix& q, int64_t group, int64_t channel, int64_t window) {
        queries.clear();
        for (int64_t i = 0; i < visit.count; ++i) {
            float* x = q.row(visit.row + i) + channel;
            const int64_t end = visit.position + i + 1, begin = window ? std::max<int64_t>(0, end - window) : 0;
            for (int64_t h = 0; h < group; ++h) queries.push_back({x + h * width, begin, end});
        }
    }

    // Blocks of rows, whose scores stay in the cache, and are all there before the first query is replaced.
    void attend() {
        const int64_t rows = queries.size(), s_stride = spread(queries.back().end + V);
        const int64_t block = std::min(std::max<int64_t>(1, 32768 / s_stride / MR) * MR, (rows + MR - 1) / MR * MR);
        resized(scores, block * s_stride);
        for (int64_t r = 0; r < rows; r += block) {
            const int64_t count = std::min(block, rows - r);
            multiply_keys(queries.data() + r, count, s_stride);
            for (int64_t i = 0; i < count; i += MR)
                mix(queries.data() + r + i, std::min<int64_t>(MR, count - i), i, s_stride);
        }
    }

    // Scores of the rows, a panel of keys at a time; a tile leaves out those that none of its rows sees.
    void multiply_keys(const Query* query, int64_t count, int64_t s_stride) {
        for (int64_t j = query[0].begin / V * V; j < query[count - 1].end; j += PANEL)
            for (int64_t r = 0; r < count; r += MR) {
                const int64_t last = std::min<int64_t>(r + MR, count) - 1;
                const int64_t from = std::max(j, query[r].begin / V * V), until = std::min(j + PANEL, query[last].end);
                if (from >= until) continue;
                const int32_t* at[MR];
                for (int64_t i = 0; i < MR; ++i) at[i] = (const int32_t*)query[std::min(r + i, last)].x;
                by_vectors((until - from + V - 1) / V, [&](auto N, int64_t c) {
                    float* to = scores.data() + r * s_stride + from + c;
                    tile<Float32, N>(at, keys.data() + from + c, stride, width, [&](int i, int n, vf x) INLINED {
                        store(to + i * s_stride + n * V, x);
                    });
                });
            }
    }

    // Probabilities of a tile of rows, the block's from row `first` on, and their sums of the values.
    void mix(const Query* query, int64_t count, int64_t first, int64_t s_stride) {
        constexpr int64_t together = MR / 2;
        float *x = scores.data() + first * s_stride, inverse[MR];
        const int64_t from = query[0].begin, until = query[count - 1].end;
        int64_t i = 0;
        for (; i + together <= count; i += together)
            probabilities<together>(x + i * s_stride, s_stride, query + i, from, until, inverse + i);
        for (; i < count; ++i) probabilities<1>(x + i * s_stride, s_stride, query + i, from, until, inverse + i);
        RowPointers at((const int32_t*)x + from, s_stride, 0, count);
        by_vectors(wide / V, [&](auto N, int64_t c) {
            const int32_t* b = (const int32_t*)values.data() + from * wide + c;
            tile<Float32, N>(at.row, b, wide, until - from, [&](int i, int n, vf sum) INLINED {
                const int64_t at = c + n * V;
                if (i < count) Attention<Float32>::put(query[i].x + at, sum * inverse[i], width - at);
            });
        });
    }

    // Scores x[from:until] of R rows become e^(x - max), 0 where a row does not see; and one over each row's sum, which
    // is added in lanes by position. Rows go side by side, since one waits for its own maximum and sum.
    template <int R>
    static void probabilities(float* x, int64_t stride, const Query* query, int64_t from, int64_t until,
                              float* inverse) {
        const vi lanes = counted(Lanes{});
        const int64_t first = from / V * V;
        auto seen = [&](int r, int64_t j, vf x, float other) INLINED {
            const vi at = lanes + (int32_t)(j - query[r].begin);
            return (at >= vi{}) & (at < splat((int32_t)(query[r].end - query[r].begin))) ? x : splat(other);
        };
        vf top[R], total[R];
        each<R>([&](auto r) INLINED { top[r] = splat(-INFINITY), total[r] = vf{}; });
        for (int64_t j = first; j < until; j += V)
            each<R>([&](auto r) INLINED { top[r] = max(seen(r, j, load(x + r * stride + j), -INFINITY), top[r]); });
        each<R>([&](auto r) INLINED { top[r] = splat(largest(top[r])); });
        for (int64_t j = first; j < until; j += V)
            each<R>([&](auto r) INLINED {
                float* to = x + r * stride + j;
                const vf y = seen(r, j, exp(load(to) - top[r]), 0);
                store(to, y);
                total[r] += y;
            });
        each<R>([&](auto r) INLINED { inverse[r] = 1.0f / sum(total[r]); });
    }
};
