/* Loops over rows of stored embeddings and over keys: compiled when they are first needed, see build.py.
 *
 * A row's score does not depend on which rows are scored along with it: each row is summed in one order.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES 16
typedef __m512 floats;
#define FLOATS_OF_HALVES(at) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(at)))
#define FLOATS(at) _mm512_loadu_ps(at)
#define ZERO _mm512_setzero_ps()
#define ADD_PRODUCT(a, b, sum) _mm512_fmadd_ps(a, b, sum)
#define ADD(a, b) _mm512_add_ps(a, b)
#define STORE(at, what) _mm512_storeu_ps(at, what)
#elif defined(__AVX2__) && defined(__F16C__) && defined(__FMA__)
#include <immintrin.h>
#define LANES 8
typedef __m256 floats;
#define FLOATS_OF_HALVES(at) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(at)))
#define FLOATS(at) _mm256_loadu_ps(at)
#define ZERO _mm256_setzero_ps()
#define ADD_PRODUCT(a, b, sum) _mm256_fmadd_ps(a, b, sum)
#define ADD(a, b) _mm256_add_ps(a, b)
#define STORE(at, what) _mm256_storeu_ps(at, what)
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#define LANES 4
typedef float32x4_t floats;
#define FLOATS_OF_HALVES(at) vcvt_f32_f16(vld1_f16((const __fp16 *)(at)))
#define FLOATS(at) vld1q_f32(at)
#define ZERO vdupq_n_f32(0)
#define ADD_PRODUCT(a, b, sum) vfmaq_f32(sum, a, b)
#define ADD(a, b) vaddq_f32(a, b)
#define STORE(at, what) vst1q_f32(at, what)
#else
#error "no instructions that convert float16"
#endif

#define AHEAD 16384 /* bytes that are fetched before they are needed */
#define LINE 64 /* bytes that are fetched at once */
#define LOGITS 64 /* rows whose scores are computed together: exponentials between two rows hold up the reading */
#define TOGETHER 2 /* weight rows that share one pass over a row */

/* The sum of four partial sums, in a fixed order: of vectors in single, of their lanes in double precision. */
static inline double total(const floats *sums) {
    float lanes[LANES];
    double all[LANES];
    STORE(lanes, ADD(ADD(sums[0], sums[1]), ADD(sums[2], sums[3])));
    for (int lane = 0; lane < LANES; lane++) all[lane] = lanes[lane];
    for (int half = LANES / 2; half; half /= 2)
        for (int lane = 0; lane < half; lane++) all[lane] += all[lane + half];
    return all[0];
}

/* One row with up to two rows of weights: its sum of squares and its products. The weights have (width + LANES) floats a
 * row, zeros behind the width. Four partial sums each keep the rounding small and the units busy. */
#define ROW(NAME, TYPE, LOAD)                                                                                        \
    static void NAME(const TYPE *row, int64_t width, const float *first, const float *second, double *square,        \
                     double *products) {                                                                             \
        floats q[4] = {ZERO, ZERO, ZERO, ZERO}, a[4] = {ZERO, ZERO, ZERO, ZERO}, b[4] = {ZERO, ZERO, ZERO, ZERO};    \
        int64_t j = 0;                                                                                               \
        for (; j + 4 * LANES <= width; j += 4 * LANES) {                                                             \
            for (size_t line = 0; line < 4 * LANES * sizeof(TYPE); line += LINE)                                     \
                __builtin_prefetch((const char *)(row + j) + AHEAD + line);                                          \
            for (int k = 0; k < 4; k++) {                                                                            \
                floats x = LOAD(row + j + k * LANES);                                                                \
                q[k] = ADD_PRODUCT(x, x, q[k]);                                                                      \
                a[k] = ADD_PRODUCT(x, FLOATS(first + j + k * LANES), a[k]);                                          \
                b[k] = ADD_PRODUCT(x, FLOATS(second + j + k * LANES), b[k]);                                         \
            }                                                                                                        \
        }                                                                                                            \
        for (; j < width; j += LANES) {                                                                              \
            TYPE rest[LANES] = {0};                                                                                  \
            memcpy(rest, row + j, sizeof(TYPE) * (size_t)(width - j < LANES ? width - j : LANES));                   \
            floats x = LOAD(rest);                                                                                   \
            q[0] = ADD_PRODUCT(x, x, q[0]);                                                                          \
            a[0] = ADD_PRODUCT(x, FLOATS(first + j), a[0]);                                                          \
            b[0] = ADD_PRODUCT(x, FLOATS(second + j), b[0]);                                                         \
        }                                                                                                            \
        *square = total(q);                                                                                          \
        products[0] = total(a);                                                                                      \
        products[1] = total(b);                                                                                      \
    }
ROW(row_of_halves, uint16_t, FLOATS_OF_HALVES)
ROW(row_of_floats, float, FLOATS)

/* Scores of `count` rows under `signals` linear probes, and the rows' norms.
 *
 * weights (signals + 1, width + LANES) and biases (signals + 1): the last row is zeros, so that they come in pairs.
 * scores (count, signals); norms (count). With `normalise`, a row counts as if it were divided by its norm. */
#define SCORE(NAME, TYPE, ONE)                                                                                       \
    void NAME(const TYPE *rows, int64_t count, int64_t width, const float *weights, const double *biases,            \
              int64_t signals, int32_t normalise, float *scores, float *norms) {                                     \
        int64_t stride = width + LANES, scored = 0;                                                                  \
        for (int64_t i = 0; i < count; i++) {                                                                        \
            for (int64_t s = 0; s < signals; s += TOGETHER) {                                                        \
                double square, products[TOGETHER];                                                                   \
                ONE(rows + i * width, width, weights + s * stride, weights + (s + 1) * stride, &square, products);   \
                double norm = sqrt(square), scale = normalise ? 1 / norm : 1;                                        \
                norms[i] = (float)norm;                                                                              \
                for (int64_t t = 0; t < TOGETHER && s + t < signals; t++)                                            \
                    scores[i * signals + s + t] = (float)(products[t] * scale + biases[s + t]);                      \
            }                                                                                                        \
            if ((i + 1) % LOGITS && i + 1 < count) continue;                                                         \
            for (; scored < (i + 1) * signals; scored++) scores[scored] = 1 / (1 + expf(-scores[scored]));           \
        }                                                                                                            \
    }
SCORE(score_halves, uint16_t, row_of_halves)
SCORE(score_floats, float, row_of_floats)

int32_t lanes(void) { return LANES; }

/* BLAKE2b (RFC 7693), several messages at a time. */
#define MESSAGES 4
#define BLOCK 128
typedef uint64_t words __attribute__((vector_size(8 * MESSAGES)));

static const uint64_t START[8] = {0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
                                  0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};
static const uint8_t ORDER[12][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3}};

#define TURN(x, n) (((x) >> (n)) | ((x) << (64 - (n))))
#define MIX(a, b, c, d, x, y)                                                                                        \
    a += b + (x);                                                                                                    \
    d = TURN(d ^ a, 32);                                                                                             \
    c += d;                                                                                                          \
    b = TURN(b ^ c, 24);                                                                                             \
    a += b + (y);                                                                                                    \
    d = TURN(d ^ a, 16);                                                                                             \
    c += d;                                                                                                          \
    b = TURN(b ^ c, 63);

/* `h` after one block of each message: `length` bytes so far, `last` all ones for a message that ends here. */
static void compress(words h[8], const uint8_t block[MESSAGES][BLOCK], words length, words last) {
    words m[16], v[16];
    for (int j = 0; j < 16; j++)
        for (int i = 0; i < MESSAGES; i++) {
            uint64_t word;
            memcpy(&word, block[i] + 8 * j, 8);
            m[j][i] = word;
        }
    for (int j = 0; j < 8; j++) {
        v[j] = h[j];
        v[j + 8] = (words){} + START[j];
    }
    v[12] ^= length;
    v[14] ^= last;
#pragma GCC unroll 12
    for (int r = 0; r < 12; r++) {
        const uint8_t *o = ORDER[r];
        MIX(v[0], v[4], v[8], v[12], m[o[0]], m[o[1]])
        MIX(v[1], v[5], v[9], v[13], m[o[2]], m[o[3]])
        MIX(v[2], v[6], v[10], v[14], m[o[4]], m[o[5]])
        MIX(v[3], v[7], v[11], v[15], m[o[6]], m[o[7]])
        MIX(v[0], v[5], v[10], v[15], m[o[8]], m[o[9]])
        MIX(v[1], v[6], v[11], v[12], m[o[10]], m[o[11]])
        MIX(v[2], v[7], v[8], v[13], m[o[12]], m[o[13]])
        MIX(v[3], v[4], v[9], v[14], m[o[14]], m[o[15]])
    }
    for (int j = 0; j < 8; j++) h[j] ^= v[j] ^ v[j + 8];
}

/* Digests of 16 bytes of `count` messages, the bytes data[offsets[i]] to data[offsets[i + 1]], keyed.
 *
 * parameters: the eight words of BLAKE2b's parameter block; key: one block, zeros behind the key. */
void digests(const uint8_t *data, const int64_t *offsets, int64_t count, const uint64_t *parameters,
             const uint8_t *key, uint8_t *out) {
    uint8_t block[MESSAGES][BLOCK];
    words begun[8], empty[8], none = {};
    for (int i = 0; i < MESSAGES; i++) memcpy(block[i], key, BLOCK);
    for (int j = 0; j < 8; j++) begun[j] = empty[j] = none + (START[j] ^ parameters[j]);
    compress(begun, block, none + BLOCK, none);
    compress(empty, block, none + BLOCK, ~none);
    for (int64_t at = 0; at < count; at += MESSAGES) {
        words h[8];
        int64_t size[MESSAGES], longest = 0;
        memcpy(h, begun, sizeof h);
        for (int i = 0; i < MESSAGES; i++) {
            int64_t row = at + i < count ? at + i : count - 1;
            size[i] = offsets[row + 1] - offsets[row];
            if (size[i] > longest) longest = size[i];
        }
        for (int64_t done = 0; done < longest; done += BLOCK) {
            words length = none, last = none, goes_on = none, next[8];
            memset(block, 0, sizeof block);
            for (int i = 0; i < MESSAGES; i++) {
                int64_t row = at + i < count ? at + i : count - 1, left = size[i] - done;
                if (left <= 0) continue;
                int64_t taken = left < BLOCK ? left : BLOCK;
                memcpy(block[i], data + offsets[row] + done, (size_t)taken);
                length[i] = (uint64_t)(BLOCK + done + taken);
                last[i] = left <= BLOCK ? ~(uint64_t)0 : 0;
                goes_on[i] = ~(uint64_t)0;
            }
            memcpy(next, h, sizeof h);
            compress(next, block, length, last);
            for (int j = 0; j < 8; j++) h[j] = (next[j] & goes_on) | (h[j] & ~goes_on);
        }
        for (int i = 0; i < MESSAGES && at + i < count; i++) {
            uint64_t found[2] = {size[i] ? h[0][i] : empty[0][i], size[i] ? h[1][i] : empty[1][i]};
            memcpy(out + 16 * (at + i), found, 16);
        }
    }
}
