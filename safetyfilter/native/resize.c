/* RGB pictures made smaller or larger, no more of them than is asked for: torch's antialiased kernels for 8 bits, to the
 * same bit, without the parts that a crop throws away. The filter, the ranges and the rounding are those of torch and
 * Pillow: rows first, then columns, 16-bit weights, 8 bits in between. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>

#define BEHIND 32 /* bytes that may be read behind a row's end */
#define PAD 64

typedef struct {
    int *first, *count;
    int16_t *taps; /* so many a pixel, zeros behind the last */
    int each, precision;
} weights;

static double filter(double x, int cubic) {
    const double a = -0.5;
    x = fabs(x);
    if (!cubic) return x < 1 ? 1 - x : 0;
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

static void release(weights *made) {
    free(made->first);
    free(made->taps);
}

/* The weights of pixels from low to high of `to`, out of `from`; 0 where there is no memory. */
static int weigh(weights *made, int from, int to, int low, int high, int cubic) {
    const double scale = (double)from / to, wide = scale >= 1 ? scale : 1;
    const double support = (cubic ? 2 : 1) * wide, narrow = scale >= 1 ? 1 / scale : 1;
    const int most = (int)ceil(support) * 2 + 1, each = (most + 3) / 4 * 4, pixels = high - low;
    double *exact = malloc((size_t)to * most * sizeof(double)), greatest = 0;
    made->first = malloc(2 * (size_t)to * sizeof(int));
    made->taps = calloc((size_t)pixels * each, sizeof(int16_t));
    if (!exact || !made->first || !made->taps) {
        free(exact);
        release(made);
        return 0;
    }
    made->count = made->first + to;
    made->each = each;
    for (int i = 0; i < to; i++) {
        const double center = scale * (i + 0.5);
        int64_t first = (int64_t)(center - support + 0.5), end = (int64_t)(center + support + 0.5);
        double *at = exact + (size_t)i * most, total = 0;
        if (first < 0) first = 0;
        if (end > from) end = from;
        int count = (int)(end - first);
        if (count > most) count = most;
        if (count < 0) count = 0;
        for (int j = 0; j < count; j++) total += at[j] = filter((j + first - center + 0.5) * narrow, cubic);
        for (int j = 0; j < count; j++) {
            if (total != 0) at[j] /= total;
            if (at[j] > greatest) greatest = at[j];
        }
        made->first[i] = (int)first;
        made->count[i] = count;
    }
    int precision = 0;
    while (precision < 22 && (int)(0.5 + greatest * (1 << (precision + 1))) < 1 << 15) precision++;
    made->precision = precision;
    for (int i = low; i < high; i++)
        for (int j = 0; j < made->count[i]; j++) {
            const double value = exact[(size_t)i * most + j] * (1 << precision);
            made->taps[(size_t)(i - low) * each + j] = (int16_t)(value < 0 ? -0.5 + value : 0.5 + value);
        }
    free(exact);
    return 1;
}

#define TOGETHER 4 /* rows that share the weights' way into registers */

static inline __m256i pixels_of(const uint8_t *one, const uint8_t *other) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)one)),
                                   _mm_loadu_si128((const __m128i *)other), 1);
}

static inline __m256i pair(const int16_t *taps) { return _mm256_broadcastd_epi32(_mm_loadu_si32(taps)); }

/* Four rows at once, one in each half of two registers. */
static void across(const uint8_t *const *from, uint8_t *to, size_t pitch, const weights *w, int low, int high) {
    const __m256i one = _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1,
                                         0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
    const __m256i two = _mm256_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1,
                                         6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
    const __m256i half = _mm256_set1_epi32(1 << (w->precision - 1));
    const __m128i shift = _mm_cvtsi32_si128(w->precision);
    const int16_t *restrict taps = w->taps;
    const int *restrict first = w->first, *restrict counts = w->count;
    const int each = w->each;
    const uint8_t *const a = from[0], *const b = from[1], *const c = from[2], *const d = from[3];
    for (int x = low; x < high; x++, taps += each, to += 3) {
        const size_t begin = 3 * (size_t)first[x];
        const int count = counts[x];
        __m256i left = half, right = half;
        for (int k = 0; k < count; k += 4) {
            const size_t at = begin + 3 * (size_t)k;
            const __m256i near = pair(taps + k), far = pair(taps + k + 2);
            const __m256i ab = pixels_of(a + at, b + at), cd = pixels_of(c + at, d + at);
            left = _mm256_add_epi32(left, _mm256_madd_epi16(_mm256_shuffle_epi8(ab, one), near));
            right = _mm256_add_epi32(right, _mm256_madd_epi16(_mm256_shuffle_epi8(cd, one), near));
            left = _mm256_add_epi32(left, _mm256_madd_epi16(_mm256_shuffle_epi8(ab, two), far));
            right = _mm256_add_epi32(right, _mm256_madd_epi16(_mm256_shuffle_epi8(cd, two), far));
        }
        const __m256i wide = _mm256_packs_epi32(_mm256_sra_epi32(left, shift), _mm256_sra_epi32(right, shift));
        const __m256i done = _mm256_packus_epi16(wide, wide);
        _mm_storeu_si32(to, _mm256_castsi256_si128(done));
        _mm_storeu_si32(to + pitch, _mm256_extracti128_si256(done, 1));
        _mm_storeu_si32(to + 2 * pitch, _mm_srli_si128(_mm256_castsi256_si128(done), 4));
        _mm_storeu_si32(to + 3 * pitch, _mm_srli_si128(_mm256_extracti128_si256(done, 1), 4));
    }
}

/* One row out of several, 16 bytes at once. */
static void down(const uint8_t *rows, size_t pitch, const int16_t *taps, int count, int precision, uint8_t *out, int bytes) {
    const __m256i half = _mm256_set1_epi32(1 << (precision - 1));
    const __m128i shift = _mm_cvtsi32_si128(precision);
    for (int x = 0; x < bytes; x += 16) {
        __m256i left = half, right = half;
        for (int k = 0; k < count; k += 2) {
            const __m256i both = pair(taps + k);
            const uint8_t *at = rows + pitch * k + x;
            const __m128i one = _mm_loadu_si128((const __m128i *)at);
            const __m128i two = k + 1 < count ? _mm_loadu_si128((const __m128i *)(at + pitch)) : one;
            left = _mm256_add_epi32(left, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(one, two)), both));
            right = _mm256_add_epi32(right, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_unpackhi_epi8(one, two)), both));
        }
        __m256i sum = _mm256_packs_epi32(_mm256_sra_epi32(left, shift), _mm256_sra_epi32(right, shift));
        sum = _mm256_permute4x64_epi64(sum, 0xD8);
        sum = _mm256_packus_epi16(sum, sum);
        const __m128i done = _mm_unpacklo_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        if (x + 16 <= bytes) {
            _mm_storeu_si128((__m128i *)(out + x), done);
        } else {
            uint8_t last[16];
            _mm_storeu_si128((__m128i *)last, done);
            memcpy(out + x, last, (size_t)(bytes - x));
        }
    }
}

int64_t resize_scratch(int64_t width, int64_t height, int64_t columns) {
    return (3 * columns + PAD) * (height + TOGETHER) + TOGETHER * (3 * width + PAD);
}

/* From width x height, whose rows lie `stride` bytes apart, to the box of what would be to_width x to_height.
 * The numbers: width, height, stride, to_width, to_height, left, top, right, low, cubic, the stride of what is made. */
int32_t resize_rgb(const uint8_t *from, const int64_t *numbers, uint8_t *scratch, uint8_t *made) {
    const int width = numbers[0], height = numbers[1], left = numbers[5], top = numbers[6], right = numbers[7];
    const int low = numbers[8], cubic = numbers[9], columns = right - left;
    const size_t stride = numbers[2], out_stride = numbers[10], pitch = 3 * (size_t)columns + PAD;
    weights x, y;
    if (!weigh(&x, width, numbers[3], left, right, cubic)) return 0;
    if (!weigh(&y, height, numbers[4], top, low, cubic)) {
        release(&x);
        return 0;
    }
    const int begin = y.first[top], end = y.first[low - 1] + y.count[low - 1];
    uint8_t *const padded = scratch + pitch * (size_t)(height + TOGETHER);
    const uint8_t *const last = from + stride * (size_t)(height - 1) + 3 * (size_t)width;
    for (int row = begin; row < end; row += TOGETHER) {
        const uint8_t *rows[TOGETHER];
        for (int k = 0; k < TOGETHER; k++) {
            rows[k] = from + stride * (size_t)(row + k < end ? row + k : row);
            if (last - rows[k] < 3 * (int64_t)width + BEHIND) { /* nothing is read behind the picture */
                uint8_t *const copy = padded + (3 * (size_t)width + PAD) * k;
                memcpy(copy, rows[k], 3 * (size_t)width);
                rows[k] = copy;
            }
        }
        across(rows, scratch + pitch * (size_t)(row - begin), pitch, &x, left, right);
    }
    for (int row = top; row < low; row++)
        down(scratch + pitch * (size_t)(y.first[row] - begin), pitch, y.taps + (size_t)(row - top) * y.each, y.count[row],
             y.precision, made + out_stride * (size_t)(row - top), 3 * columns);
    release(&x);
    release(&y);
    return 1;
}

int32_t resizes(void) { return 1; }

#else

int64_t resize_scratch(int64_t width, int64_t height, int64_t columns) { return width + height + columns; }
int32_t resize_rgb(const uint8_t *from, const int64_t *numbers, uint8_t *scratch, uint8_t *made) { return 0; }
int32_t resizes(void) { return 0; }

#endif
