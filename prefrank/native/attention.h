// Attention inside each row of a packed batch, head by head: plain, or DeBERTa's with its two position terms, or MPNet's
// with a bias by distance.
//
// score[i, j] = q_i.k_j + q_i.PK[i - j] + PQ[i - j].k_j, softmax over j, times the values. (He et al. 2021, eq. 4.)
// PK and PQ are laid out by distance, transposed, once per layer and chunk; then what a tile of queries reads of PK, and
// a tile of keys of PQ, is one small product whose result is shifted by one per row: no [L, L] index, no gather.
// The second comes out transposed and is added through transposes in registers. Queries go in blocks, so that a block of
// scores stays in the second-level cache. Which rows share a chunk never reaches these sums.
#pragma once
#include "gemm.h"

// A stride for `width` words that spreads rows over the sets of the cache: an odd number of lines.
inline int64_t spread(int64_t width) { return (((width + 15) / 16) | 1) * 16; }
inline int64_t whole_vectors(int64_t n) { return (n + V - 1) / V * V; }

// The A side of a product: [rows, words], a scale per row where the words are integers.
struct Side {
    const int32_t* words;
    int64_t stride;
    const float* scale;
};

// A layer's projected relative embeddings in the operands' own form: [S, heads, words], integers with a scale each.
struct Relative {
    const int32_t* words;
    const float* scale;
};

// The relative embeddings of one head by distance, [words, columns]; column = distance + zero.
template <class Op> struct Places {
    std::vector<int32_t> table;
    std::vector<float> scales;
    int64_t stride = 0, zero = 0, words = 0;

    // `from` is [S, heads, words] with scales [S, heads]; row_of[distance + longest] names a row of it. Distances up to
    // `most` - 1 are laid out; `sign` -1 lays columns by -distance.
    void lay(const Relative& from, int64_t num_heads, int64_t head_words, const int32_t* row_of, int64_t longest,
             int64_t most, int sign, std::vector<int32_t>& rows) {
        words = head_words, zero = most - 1 + MR;
        stride = spread(2 * most - 1 + 2 * MR + (NV + 1) * V);
        resized(table, num_heads * words * stride);
        if (from.scale) resized(scales, num_heads * stride);
        int32_t* one = resized(rows, stride * words);
        for (int64_t h = 0; h < num_heads; ++h) {
            for (int64_t c = 0; c < stride; ++c) {
                int64_t distance = (c - zero) * sign;
                distance = distance < 1 - most ? 1 - most : distance > most - 1 ? most - 1 : distance;
                const int64_t at = row_of[distance + longest] * num_heads + h;
                std::memcpy(one + c * words, from.words + at * words, 4 * words);
                if (from.scale) scales[h * stride + c] = from.scale[at];
            }
            transpose_words(one, words, stride, words, table.data() + h * words * stride, stride, stride);
        }
    }
    const int32_t* at(int64_t head, int64_t distance_column) const {
        return table.data() + head * words * stride + zero + distance_column;
    }
    const float* scale_at(int64_t head, int64_t distance_column) const {
        return scales.data() + head * stride + zero + distance_column;
    }
};

// One number by distance and head, added to the scores: [heads, stride], column = key - query + zero.
struct Biases {
    std::vector<float> table;
    int64_t stride = 0, zero = 0;

    // `from` is [S, heads]; row_of[distance + longest] names a row of it, the distance being query - key.
    void lay(const float* from, int64_t num_heads, const int32_t* row_of, int64_t longest) {
        zero = longest + MR, stride = 2 * longest + MR + V;  // a tile reads past the last query, a vector past the last key
        resized(table, num_heads * stride);
        for (int64_t h = 0; h < num_heads; ++h)
            for (int64_t c = 0; c < stride; ++c) {
                const int64_t distance = zero - c;
                table[h * stride + c] = distance < -longest || distance > longest ? 0 : from[row_of[distance + longest] * num_heads + h];
            }
    }
    // What query 0 reads, by key; query i reads i places before it.
    const float* at(int64_t head) const { return table.data() + head * stride + zero; }
};

template <class Op> struct Attention {
    Places<Op> keys, queries;  // PK by falling distance (columns go with j), PQ by rising distance (with i)
    std::vector<int32_t> rows, q_words, k_words, k_turned, v_words, p_words;
    std::vector<float> q_scale, k_scale, v_scale, p_scale, scores, c2p, p2c;

    // The int16 limit that keeps sums of d products inside int32, for both sides alike.
    static float top(int64_t d) { return Op::per_word == 1 ? 0 : std::floor(std::sqrt(2147000000.0 / d)) - 1; }

    void lay_positions(const Relative& pk, const Relative& pq, int64_t heads, int64_t d, const int32_t* row_of,
                       int64_t longest, int64_t most) {
        const int64_t words = (d + Op::per_word - 1) / Op::per_word;
        if (pk.words) keys.lay(pk, heads, words, row_of, longest, most, -1, rows);
        if (pq.words) queries.lay(pq, heads, words, row_of, longest, most, 1, rows);
    }

    static Side side(const float* x, int64_t stride, int64_t length, int64_t d, float limit, std::vector<int32_t>& words,
                     std::vector<float>& scale) {
        if constexpr (Op::per_word == 1) return {(const int32_t*)x, stride, nullptr};
        const int64_t w = (d + Op::per_word - 1) / Op::per_word;
        resized(words, length * w + V), resized(scale, whole_vectors(length));  // in order: a row's tail is written over
        for (int64_t i = 0; i < length; ++i) scale[i] = quantise_row<Op>(x + i * stride, d, limit, 0, words.data() + i * w);
        for (int64_t i = length; i < whole_vectors(length); ++i) scale[i] = 0;
        return {words.data(), w, scale.data()};
    }

    template <class A> static INLINE vf value(A acc, const float* row_scale, int64_t row, const float* column_scale) {
        if constexpr (Op::per_word == 1) return acc;
        else return to_float(acc) * row_scale[row] * load(column_scale);
    }

    // One head of one row: q, k, v and out are [length, d] inside matrices of `stride` floats a row. `bias` is null or
    // what query 0 adds to the score of each key, and query i reads i places before it.
    void head(const float* q, const float* k, const float* v, int64_t stride, float* out, int64_t out_stride,
              int64_t length, int64_t d, int64_t h, bool c2p_term, bool p2c_term, const float* bias) {
        const int64_t words = (d + Op::per_word - 1) / Op::per_word, wide = whole_vectors(length), s_stride = spread(wide);
        const float limit = top(d);
        const Side queries_side = side(q, stride, length, d, limit, q_words, q_scale);
        const Side keys_side = side(k, stride, length, d, limit, k_words, k_scale);
        const int64_t k_stride = spread(wide);
        int32_t* turned = resized(k_turned, words * k_stride);
        transpose_words(keys_side.words, keys_side.stride, length, words, turned, k_stride, wide);
        const float* by_key = keys_side.scale;

        int64_t block = 65536 / wide / V * V;
        block = block < 2 * V ? 2 * V : block > whole_vectors(length) ? whole_vectors(length) : block;
        float* s = resized(scores, (block + MR) * s_stride);
        const int64_t c2p_stride = spread(wide + MR + V), p2c_stride = spread(block + MR + V);
        float* c = resized(c2p, MR * c2p_stride);
        float* p = resized(p2c, (wide + MR) * p2c_stride);
        for (int64_t i0 = 0; i0 < length; i0 += block) {
            const int64_t rows_here = length - i0 < block ? length - i0 : block;
            if (p2c_term) read_by_keys(keys_side, h, i0, rows_here, length, words, p, p2c_stride);
            for (int64_t i = 0; i < rows_here; i += MR) {
                RowPointers at(queries_side.words, queries_side.stride, i0 + i, length);
                const float* by_query = queries_side.scale;
                auto scale_of = [&](int r) INLINED { return i0 + i + r < length ? i0 + i + r : length - 1; };
                if (c2p_term) {
                    // Column 0 is the distance of the tile's last query to key 0; row r starts MR - 1 - r later.
                    const int64_t first = -(i0 + i + MR - 1);
                    const int32_t* table = keys.at(h, first);
                    const float* by_place = keys.scales.empty() ? nullptr : keys.scale_at(h, first);
                    by_vectors((length + MR - 1 + V - 1) / V, [&](auto N, int64_t j) {
                        tile<Op, N>(at.row, table + j, keys.stride, words, [&](int r, int n, auto acc) INLINED {
                            store(c + r * c2p_stride + j + n * V, value(acc, by_query, scale_of(r), by_place + j + n * V));
                        });
                    });
                }
                by_vectors(wide / V, [&](auto N, int64_t j) {
                    tile<Op, N>(at.row, turned + j, k_stride, words, [&](int r, int n, auto acc) INLINED {
                        const int64_t to = j + n * V;
                        vf x = value(acc, by_query, scale_of(r), by_key + to);
                        if (c2p_term) x += load(c + r * c2p_stride + MR - 1 - r + to);
                        if (bias) x += load(bias + to - (i0 + i + r));
                        store(s + (i + r) * s_stride + to, x);
                    });
                });
            }
            if (p2c_term) add_turned(p, p2c_stride, rows_here, wide, s, s_stride);
            softmax_and_mix(s, s_stride, rows_here, length, v, stride, d, out + i0 * out_stride, out_stride);
        }
    }

    // p[j, i + MR - 1 - j % MR] = PQ[i0 + i - j] . k_j for the queries i0 .. i0 + count.
    void read_by_keys(const Side& keys_side, int64_t h, int64_t i0, int64_t count, int64_t length, int64_t words, float* p,
                      int64_t stride) {
        for (int64_t j = 0; j < length; j += MR) {
            RowPointers at(keys_side.words, keys_side.stride, j, length);
            const int64_t first = i0 - (j + MR - 1);
            const int32_t* table = queries.at(h, first);
            const float* by_place = queries.scales.empty() ? nullptr : queries.scale_at(h, first);
            by_vectors((count + MR - 1 + V - 1) / V, [&](auto N, int64_t i) {
                tile<Op, N>(at.row, table + i, queries.stride, words, [&](int r, int n, auto acc) INLINED {
                    const int64_t row = j + r < length ? j + r : length - 1;
                    store(p + (j + r) * stride + i + n * V, value(acc, keys_side.scale, row, by_place + i + n * V));
                });
            });
        }
    }

    // s[i, j] += p[j, i + MR - 1 - j % MR], V x V at a time.
    static void add_turned(const float* p, int64_t p_stride, int64_t count, int64_t wide, float* s, int64_t s_stride) {
        for (int64_t i = 0; i < count; i += V)
            for (int64_t j = 0; j < wide; j += V) {
                vi x[V];
                each<V>([&](auto r) INLINED {
                    x[r] = load((const int32_t*)p + (j + r) * p_stride + i + MR - 1 - (j + r) % MR);
                });
                transpose_lanes(x);
                each<V>([&](auto r) INLINED {
                    float* to = s + (i + r) * s_stride + j;
                    store(to, load(to) + as_float(x[r]));
                });
            }
    }

    // Softmax over the first `length` columns, then out = probabilities times the values.
    void softmax_and_mix(float* s, int64_t s_stride, int64_t count, int64_t length, const float* v, int64_t stride,
                         int64_t d, float* out, int64_t out_stride) {
        const int64_t wide = whole_vectors(length);
        float* total = resized(p_scale, count + MR);
        for (int64_t i = 0; i < count; ++i) total[i] = 1.0f / exponentials(s + i * s_stride, length, wide);
        if constexpr (Op::per_word == 1) {
            for (int64_t i = 0; i < count; i += MR) {
                RowPointers at((const int32_t*)s, s_stride, i, count);
                mix<Float32>(at, (const int32_t*)v, stride, length, d, [&](int r, int64_t c, vf x) INLINED {
                    if (i + r < count) put(out + (i + r) * out_stride + c, x * total[i + r], d - c);
                });
            }
            return;
        }
        mix_integers(s, s_stride, count, length, v, stride, d, total, out, out_stride);
    }

    template <class Kind, class F>
    static void mix(const RowPointers& at, const int32_t* v, int64_t stride, int64_t words, int64_t d, F&& f) {
        by_vectors(whole_vectors(d) / V, [&](auto N, int64_t c) {
            tile<Kind, N>(at.row, v + c, stride, words, [&](int r, int n, auto acc) INLINED { f(r, c + n * V, as_sum<Kind>(acc)); });
        });
    }

    // Values get 11 bits, and a row's probabilities as many as its own sum allows: 2047 x their sum < 2^31.
    void mix_integers(float* s, int64_t s_stride, int64_t count, int64_t length, const float* v, int64_t stride, int64_t d,
                      float* total, float* out, int64_t out_stride) {
        const int64_t words = (length + 1) / 2, wide = whole_vectors(d);
        int32_t* vw = resized(v_words, words * wide);
        float* vs = resized(v_scale, wide);
        for (int64_t c = 0; c < wide; c += V) {  // lanes past d belong to other heads and are never stored
            vf peak{};
            for (int64_t j = 0; j < length; ++j) peak = max(abs(load(v + j * stride + c)), peak);
            const vf by = peak > vf{} ? 2047.0f / peak : splat(1.0f);
            for (int64_t w = 0; w < words; ++w) {
                const float* even = v + 2 * w * stride + c;
                vi x = round_to_int(load(even) * by) & 0xffff;
                if (2 * w + 1 < length) x |= round_to_int(load(even + stride) * by) << 16;
                store(vw + w * wide + c, x);
            }
            store(vs + c, peak / 2047.0f);
        }
        for (int64_t i = 0; i < count; ++i) {
            // exp sums to 1 / total and is at most 1.
            const float most = (1048000.0f - 0.5f * length) * total[i];
            const float factor = most > 32767.0f ? 32767.0f : most;
            float* x = s + i * s_stride;
            // In place: the 2 bytes never pass the 4 that they come from. Past `length` x is 0.
            for (int64_t j = 0; j < whole_vectors(length); j += V) store_short((int16_t*)x + j, round_to_int(load(x + j) * factor));
            total[i] /= factor;
        }
        for (int64_t i = 0; i < count; i += MR) {
            RowPointers at((const int32_t*)s, s_stride, i, count);
            mix<Int16>(at, vw, wide, words, d, [&](int r, int64_t c, vf x) INLINED {
                if (i + r < count) put(out + (i + r) * out_stride + c, x * total[i + r] * load(vs + c), d - c);
            });
        }
    }

    static INLINE void put(float* to, vf x, int64_t left) {
        if (left >= V) store(to, x);
        else for (int i = 0; i < left; ++i) to[i] = x[i];
    }

    // x becomes e^(x - max); returns the sum. Columns past `length` become 0.
    static float exponentials(float* x, int64_t length, int64_t wide) {
        for (int64_t j = length; j < wide; ++j) x[j] = -INFINITY;
        vf peak = load(x);
        for (int64_t j = V; j < wide; j += V) peak = max(load(x + j), peak);
        const vf top = splat(largest(peak));
        vf total{};
        for (int64_t j = 0; j < wide; j += V) {
            vf y = exp(load(x + j) - top);
            store(x + j, y);
            total += y;
        }
        for (int64_t j = length; j < wide; ++j) x[j] = 0;
        return sum(total);
    }
};
