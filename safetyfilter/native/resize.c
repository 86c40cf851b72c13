/* RGB pictures made smaller or larger, no more of them than is asked for: torch's antialiased kernels for 8 bits, to
 * the same bit, without the parts that a crop throws away. The filter, the ranges and the rounding are those of torch
 * and Pillow: rows first, then columns, 16-bit weights, 8 bits in between.
 *
 * Processors multiply and add numbers in pairs. So a pixel's weights begin at an even place and are as many as any
 * pixel's, zeros among them, and values that are added lie side by side. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>

#define BEHIND 16  /* bytes that may be read behind a row's end */
#define PAD 64     /* bytes that may be written behind one */
#define TOGETHER 4 /* rows that are made narrower at once */
#define MORE 12    /* pairs of narrowed rows held beyond what a row is made of, of which the last are moved at once */

typedef struct {
    int *first;    /* of each pixel wanted: where its weights begin, an even place */
    int16_t *taps; /* of each pixel wanted, and of one more: 2 * pairs weights */
    int pairs, precision;
} weights;

/* The filter's values at four places. */
static inline __m256d filter(__m256d x, int cubic) {
    const double a = -0.5;
    x = _mm256_andnot_pd(_mm256_set1_pd(-0.0), x);
    const __m256d below_one = _mm256_cmp_pd(x, _mm256_set1_pd(1), _CMP_LT_OQ);
    if (!cubic) return _mm256_and_pd(below_one, 1 - x);
    const __m256d below_two = _mm256_cmp_pd(x, _mm256_set1_pd(2), _CMP_LT_OQ);
    const __m256d near = ((a + 2) * x - (a + 3)) * x * x + 1, far = (((x - 5) * x + 8) * x - 4) * a;
    return _mm256_blendv_pd(_mm256_and_pd(below_two, far), near, below_one);
}

static void release(weights *made) {
    free(made->first);
    free(made->taps);
}

/* The weights of pixels from low to high of `to`, out of `from`; 0 where there is no memory. */
static int weigh(weights *made, int from, int to, int low, int high, int cubic) {
    const double scale = (double)from / to, wide = scale >= 1 ? scale : 1;
    const double support = (cubic ? 2 : 1) * wide, narrow = scale >= 1 ? 1 / scale : 1;
    const int most = (int)ceil(support) * 2 + 1, each = (most + 3) / 4 * 4;
    const int even = (from + 1) / 2 * 2, pixels = high - low;
    double *const exact = malloc((size_t)to * (each + 1) * sizeof(double)), *const totals = exact + (size_t)to * each;
    int *const firsts = malloc(2 * (size_t)to * sizeof(int)), *const counts = firsts + to;
    made->first = malloc(((size_t)pixels + 1) * sizeof(int));
    made->taps = NULL;
    if (!exact || !firsts || !made->first) goto none;
    int pairs = 1;
    double greatest = 0;
    for (int i = 0; i < to; i++) {
        const double center = scale * (i + 0.5);
        int64_t begin = (int64_t)(center - support + 0.5), end = (int64_t)(center + support + 0.5);
        double *const at = exact + (size_t)i * each;
        double total = 0, peak = 0;
        if (begin < 0) begin = 0;
        if (end > from) end = from;
        const int first = (int)begin;
        int count = (int)(end - begin);
        if (count > most) count = most;
        if (count < 0) count = 0;
        for (int j = 0; j < count; j += 4) {
            const __m256d x = _mm256_cvtepi32_pd(_mm_add_epi32(_mm_set1_epi32(first + j), _mm_setr_epi32(0, 1, 2, 3)));
            _mm256_storeu_pd(at + j, filter((x - center + 0.5) * narrow, cubic));
        }
        for (int j = 0; j < count; j++) {
            total += at[j];
            peak = at[j] > peak ? at[j] : peak;
        }
        for (int j = count; j % 4; j++) at[j] = 0;
        totals[i] = total != 0 ? total : 1;
        greatest = peak / totals[i] > greatest ? peak / totals[i] : greatest;
        firsts[i] = first;
        counts[i] = count;
        if (i >= low && i < high && (first % 2 + count + 1) / 2 > pairs) pairs = (first % 2 + count + 1) / 2;
    }
    int precision = 0;
    while (precision < 22 && (int)(0.5 + greatest * (1 << (precision + 1))) < 1 << 15) precision++;
    made->precision = precision;
    made->pairs = pairs;
    made->taps = calloc(((size_t)pixels + 1) * 2 * pairs + 4, sizeof(int16_t));
    if (!made->taps) goto none;
    for (int i = low; i < high; i++) {
        const int spare = even - 2 * pairs, first = firsts[i] / 2 * 2 < spare ? firsts[i] / 2 * 2 : spare;
        int16_t *const taps = made->taps + (size_t)(i - low) * 2 * pairs + (firsts[i] - first);
        const double *const at = exact + (size_t)i * each;
        for (int j = 0; j < counts[i]; j += 4) { /* zeros behind the last, which the next pixel's weights replace */
            const __m256d value = _mm256_loadu_pd(at + j) / totals[i] * (double)(1 << precision);
            const __m256d half = _mm256_or_pd(_mm256_and_pd(value, _mm256_set1_pd(-0.0)), _mm256_set1_pd(0.5));
            const __m128i rounded = _mm256_cvttpd_epi32(value + half);
            _mm_storeu_si64(taps + j, _mm_packs_epi32(rounded, rounded));
        }
        made->first[i - low] = first;
    }
    made->first[pixels] = made->first[pixels - 1];
    free(exact);
    free(firsts);
    return 1;
none:
    free(exact);
    free(firsts);
    release(made);
    return 0;
}

/* A thread's last weights along one side, since pictures of one size often follow each other. */
typedef struct {
    int from, to, low, high, cubic;
    weights made;
} kept;

static _Thread_local kept kept_x, kept_y;

static const weights *weights_of(kept *last, int from, int to, int low, int high, int cubic) {
    if (last->from == from && last->to == to && last->low == low && last->high == high && last->cubic == cubic)
        return &last->made;
    if (last->from) release(&last->made);
    last->from = 0;
    if (!weigh(&last->made, from, to, low, high, cubic)) return NULL;
    *last = (kept){from, to, low, high, cubic, last->made};
    return &last->made;
}

static inline __m256i pair(const int16_t *taps) { return _mm256_broadcastd_epi32(_mm_loadu_si32(taps)); }

static inline __m256i add(__m256i sum, __m256i values, __m256i taps) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(values, taps));
}

/* Two rows, one in each half: their pixels from low to high by twos, in 16 bits, as red, red, green, green, blue, blue,
 * and two more that count for nothing. So many bytes ahead lie the rows that come next. */
static void spread(const uint8_t *one, const uint8_t *other, __m256i *to, int low, int high, size_t ahead) {
    const __m256i near = _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1,
                                          0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
    const __m256i far = _mm256_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1,
                                         6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
    for (int x = low; x < high; x += 4, to += 2) {
        const size_t at = 3 * (size_t)x;
        const __m128i a = _mm_loadu_si128((const __m128i *)(one + at));
        const __m128i b = _mm_loadu_si128((const __m128i *)(other + at));
        const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
        __builtin_prefetch((const void *)((uintptr_t)one + at + ahead));
        __builtin_prefetch((const void *)((uintptr_t)other + at + ahead));
        _mm256_storeu_si256(to, _mm256_shuffle_epi8(both, near));
        _mm256_storeu_si256(to + 1, _mm256_shuffle_epi8(both, far));
    }
}

#define ALWAYS static inline __attribute__((always_inline))

/* Four rows made narrower, two pixels at a time, to two rows in which bytes of one and of the next take turns. */
ALWAYS void across_by(const __m256i *ab, const __m256i *cd, int begin, uint8_t *to, size_t pitch, const weights *w,
                      int columns, int pairs) {
    const __m128i close = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, -1, -1, -1, -1);
    const __m256i half = _mm256_set1_epi32(1 << (w->precision - 1));
    const __m128i shift = _mm_cvtsi32_si128(w->precision);
    const int16_t *restrict taps = w->taps;
    for (int x = 0; x < columns; x += 2, to += 12, taps += 4 * pairs) {
        const size_t one = (size_t)(w->first[x] - begin) / 2, two = (size_t)(w->first[x + 1] - begin) / 2;
        __m256i ab1 = half, cd1 = half, ab2 = half, cd2 = half;
        for (int k = 0; k < pairs; k++) {
            const __m256i near = pair(taps + 2 * k), far = pair(taps + 2 * (pairs + k));
            ab1 = add(ab1, _mm256_loadu_si256(ab + one + k), near);
            cd1 = add(cd1, _mm256_loadu_si256(cd + one + k), near);
            ab2 = add(ab2, _mm256_loadu_si256(ab + two + k), far);
            cd2 = add(cd2, _mm256_loadu_si256(cd + two + k), far);
        }
        ab1 = _mm256_packs_epi32(_mm256_sra_epi32(ab1, shift), _mm256_sra_epi32(ab2, shift));
        cd1 = _mm256_packs_epi32(_mm256_sra_epi32(cd1, shift), _mm256_sra_epi32(cd2, shift));
        const __m256i done = _mm256_packus_epi16(ab1, cd1);
        const __m128i ac = _mm256_castsi256_si128(done), bd = _mm256_extracti128_si256(done, 1);
        _mm_storeu_si128((__m128i *)to, _mm_shuffle_epi8(_mm_unpacklo_epi8(ac, bd), close));
        _mm_storeu_si128((__m128i *)(to + pitch), _mm_shuffle_epi8(_mm_unpackhi_epi8(ac, bd), close));
    }
}

/* One row out of several, 32 bytes at once. */
ALWAYS void down_by(const uint8_t *rows, size_t pitch, const weights *w, const int16_t *taps, uint8_t *out, int bytes,
                    int pairs) {
    const __m256i half = _mm256_set1_epi32(1 << (w->precision - 1)), order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m128i shift = _mm_cvtsi32_si128(w->precision);
    for (int x = 0; x < bytes; x += 32) {
        __m256i sums[4] = {half, half, half, half};
        for (int k = 0; k < pairs; k++) {
            const __m256i both = pair(taps + 2 * k);
            const __m128i *const at = (const __m128i *)(rows + pitch * k + 2 * x);
            for (int n = 0; n < 4; n++) sums[n] = add(sums[n], _mm256_cvtepu8_epi16(_mm_loadu_si128(at + n)), both);
        }
        for (int n = 0; n < 4; n++) sums[n] = _mm256_sra_epi32(sums[n], shift);
        __m256i done = _mm256_packus_epi16(_mm256_packs_epi32(sums[0], sums[1]), _mm256_packs_epi32(sums[2], sums[3]));
        done = _mm256_permutevar8x32_epi32(done, order);
        if (x + 32 <= bytes) {
            _mm256_storeu_si256((__m256i *)(out + x), done);
        } else {
            uint8_t last[32];
            _mm256_storeu_si256((__m256i *)last, done);
            memcpy(out + x, last, (size_t)(bytes - x));
        }
    }
}

/* The usual numbers of pairs are known to the compiler, which then writes no loop. */
#define BY_PAIRS(call, ...)                   \
    switch (w->pairs) {                       \
    case 2: call(__VA_ARGS__, 2); break;      \
    case 3: call(__VA_ARGS__, 3); break;      \
    case 4: call(__VA_ARGS__, 4); break;      \
    case 5: call(__VA_ARGS__, 5); break;      \
    case 6: call(__VA_ARGS__, 6); break;      \
    case 7: call(__VA_ARGS__, 7); break;      \
    default: call(__VA_ARGS__, w->pairs);     \
    }

static void across(const __m256i *ab, const __m256i *cd, int begin, uint8_t *to, size_t pitch, const weights *w,
                   int columns) {
    BY_PAIRS(across_by, ab, cd, begin, to, pitch, w, columns)
}

static void down(const uint8_t *rows, size_t pitch, const weights *w, const int16_t *taps, uint8_t *out, int bytes) {
    BY_PAIRS(down_by, rows, pitch, w, taps, out, bytes)
}

static size_t pitch_of(int64_t columns) { return 6 * (size_t)columns + PAD; }
static size_t spread_of(int64_t width) { return ((size_t)width + 1) / 2 * sizeof(__m256i) + PAD; }
static size_t copy_of(int64_t width) { return 3 * (size_t)width + PAD; }

int64_t resize_scratch(int64_t width, int64_t height, int64_t columns) {
    const size_t narrowed = pitch_of(columns) * (height / 2 + TOGETHER);
    return sizeof(__m256i) + 2 * spread_of(width) + TOGETHER * copy_of(width) + narrowed;
}

/* From width x height, whose rows lie `stride` bytes apart, to the box of what would be to_width x to_height.
 * Wanted: to_width, to_height, left, top, right, low, cubic. */
int32_t resize_rgb(const uint8_t *from, int64_t width, int64_t height, int64_t stride, const int64_t *wanted,
                   uint8_t *scratch, uint8_t *made, int64_t made_stride) {
    const int left = wanted[2], top = wanted[3], right = wanted[4], low = wanted[5], cubic = wanted[6];
    const int columns = right - left;
    const size_t pitch = pitch_of(columns);
    const weights *const known_x = weights_of(&kept_x, width, wanted[0], left, right, cubic);
    const weights *const known_y = weights_of(&kept_y, height, wanted[1], top, low, cubic);
    if (!known_x || !known_y) return 0;
    const weights x = *known_x, y = *known_y;
    scratch += -(uintptr_t)scratch % sizeof(__m256i);
    __m256i *const ab = (__m256i *)scratch, *const cd = (__m256i *)(scratch + spread_of(width));
    uint8_t *const copies = scratch + 2 * spread_of(width), *const narrowed = copies + TOGETHER * copy_of(width);
    const uint8_t *const last = from + stride * (height - 1) + 3 * (size_t)width;
    const int from_column = x.first[0], to_column = x.first[columns - 1] + 2 * x.pairs, held = 2 * (y.pairs + MORE);
    int begin = y.first[0], ready = begin; /* rows of the picture: the first that is held narrowed, and the next */
    for (int row = 0; row < low - top; ready += TOGETHER) {
        const uint8_t *rows[TOGETHER];
        for (int k = 0; k < TOGETHER; k++) {
            rows[k] = from + stride * (ready + k < height ? ready + k : height - 1);
            if (last - rows[k] < 3 * width + BEHIND) { /* nothing is read behind the picture */
                uint8_t *const copy = copies + copy_of(width) * k;
                memcpy(copy, rows[k], 3 * (size_t)width);
                rows[k] = copy;
            }
        }
        spread(rows[0], rows[1], ab, from_column, to_column, TOGETHER * stride);
        spread(rows[2], rows[3], cd, from_column, to_column, TOGETHER * stride);
        if (ready + TOGETHER - begin > held) { /* few are held, so that they stay in the processor's nearest memory */
            const size_t done = (size_t)(y.first[row] - begin) / 2, all = (size_t)(ready - begin) / 2;
            memmove(narrowed, narrowed + pitch * done, pitch * (all - done));
            begin = y.first[row];
        }
        across(ab, cd, from_column, narrowed + pitch * (size_t)((ready - begin) / 2), pitch, &x, columns);
        for (; row < low - top && y.first[row] + 2 * y.pairs <= ready + TOGETHER; row++)
            down(narrowed + pitch * (size_t)((y.first[row] - begin) / 2), pitch, &y, y.taps + 2 * y.pairs * (size_t)row,
                 made + made_stride * row, 3 * columns);
    }
    return 1;
}

int32_t resizes(void) { return 1; }

#else

int64_t resize_scratch(int64_t width, int64_t height, int64_t columns) { return width + height + columns; }
int32_t resize_rgb(const uint8_t *from, int64_t width, int64_t height, int64_t stride, const int64_t *wanted,
                   uint8_t *scratch, uint8_t *made, int64_t made_stride) {
    return 0;
}
int32_t resizes(void) { return 0; }

#endif
