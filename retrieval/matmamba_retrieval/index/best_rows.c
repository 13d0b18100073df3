/* The best of some float16 vectors for a query, read where they lie: in the mapped files of a gallery.
 *
 * Sums are in double precision, where a product of a float16 and a float32 is exact, and in one order: scores are
 * the same to the bit with every instruction set, and a score depends on nothing but its two vectors.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "instructions.h"

/* Partial sums of a row: that of number i of a row is i modulo so many. */
#define LANES 32
/* Rows that are looked up at a time, ... */
#define CHUNK 128
/* ... and how far ahead of the sums they are asked for from memory. */
#define AHEAD 12
#define LINE 64

/* `row_kernels.py` mirrors these. Rows of a file, or of memory. */
typedef struct {
    const uint16_t *rows;   /* (count, row) float16 */
    const uint8_t *checked; /* of every `each` rows, whether they are known to be what was written; null: all are */
    int64_t start, count, each;
} Part;

/* Vectors by key. */
typedef struct {
    const Part *parts; /* in the order of their keys, without a gap */
    int64_t parts_count, keys, row;
} Table;

/* Sums of a row's products with the query, and of its squares. */
typedef struct {
    double product, squares;
} Sums;
typedef void SumsFunction(const uint16_t *row, const float *query, int64_t dim, int squares, Sums *into);

#ifdef ISA

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__AVX512F__)
#define GROUP 8
typedef __m512d Wide;
static inline Wide halves(const uint16_t *at) { return _mm512_cvtps_pd(_mm256_cvtph_ps(_mm_loadu_si128((const void *)at))); }
static inline Wide floats(const float *at) { return _mm512_cvtps_pd(_mm256_loadu_ps(at)); }
static inline Wide add_product(Wide a, Wide b, Wide sum) { return _mm512_fmadd_pd(a, b, sum); }
static inline void put(double *at, Wide value) { _mm512_storeu_pd(at, value); }
#elif defined(__AVX2__)
#define GROUP 4
typedef __m256d Wide;
static inline Wide halves(const uint16_t *at) { return _mm256_cvtps_pd(_mm_cvtph_ps(_mm_loadl_epi64((const void *)at))); }
static inline Wide floats(const float *at) { return _mm256_cvtps_pd(_mm_loadu_ps(at)); }
static inline Wide add_product(Wide a, Wide b, Wide sum) { return _mm256_fmadd_pd(a, b, sum); }
static inline void put(double *at, Wide value) { _mm256_storeu_pd(at, value); }
#endif

static inline double number(uint16_t half) {
#if defined(__aarch64__)
    __fp16 value;
    memcpy(&value, &half, 2);
    return value;
#else
    /* Exponent and fraction go to their places in a float, whose exponent then is too small by 112. */
    uint32_t bits = (uint32_t)(half & 0x7FFF) << 13, sign = (uint32_t)(half & 0x8000) << 16;
    float value;
    if (bits >= 0x0F800000) bits |= 0x7F800000; /* infinity, NaN */
    memcpy(&value, &bits, 4);
    if (bits < 0x0F800000) value *= 0x1p112f;
    memcpy(&bits, &value, 4), bits |= sign, memcpy(&value, &bits, 4);
    return value;
#endif
}

/* Always by the same pairs. */
static double sum_of(double *lanes) {
    for (int half = LANES / 2; half; half /= 2)
        for (int lane = 0; lane < half; lane++) lanes[lane] += lanes[lane + half];
    return lanes[0];
}

static inline __attribute__((always_inline)) double sum_row(const uint16_t *row, const float *query, int64_t dim) {
    double lanes[LANES] = {0};
    int64_t whole = dim / LANES * LANES;
#ifdef GROUP
    Wide sums[LANES / GROUP];
    for (int g = 0; g < LANES / GROUP; g++) sums[g] = (Wide){0};
    for (int64_t i = 0; i < whole; i += LANES)
#pragma GCC unroll 8
        for (int g = 0; g < LANES / GROUP; g++) {
            Wide values = halves(row + i + g * GROUP);
            sums[g] = add_product(values, query ? floats(query + i + g * GROUP) : values, sums[g]);
        }
    for (int g = 0; g < LANES / GROUP; g++) put(lanes + g * GROUP, sums[g]);
#else
    for (int64_t i = 0; i < whole; i += LANES)
        for (int lane = 0; lane < LANES; lane++) {
            double value = number(row[i + lane]);
            lanes[lane] += value * (query ? query[i + lane] : value);
        }
#endif
    for (int64_t i = whole; i < dim; i++) {
        double value = number(row[i]);
        lanes[i - whole] += value * (query ? query[i] : value);
    }
    return sum_of(lanes);
}

void JOIN(matmamba_row_sums_, ISA)(const uint16_t *row, const float *query, int64_t dim, int squares, Sums *into) {
    into->product = sum_row(row, query, dim);
    if (squares) into->squares = sum_row(row, 0, dim);
}

#else /* The part that is compiled once. */

#if defined(__x86_64__)
extern SumsFunction matmamba_row_sums_avx512, matmamba_row_sums_avx2;
#elif defined(__aarch64__)
extern SumsFunction matmamba_row_sums_neon;
#endif
extern SumsFunction matmamba_row_sums_plain;

static SumsFunction *sums_by_name(const char *name) {
    name = matmamba_instructions(name);
#if defined(__x86_64__)
    if (name && !strcmp(name, "avx512")) return matmamba_row_sums_avx512;
    if (name && !strcmp(name, "avx2")) return matmamba_row_sums_avx2;
#elif defined(__aarch64__)
    if (name && !strcmp(name, "neon")) return matmamba_row_sums_neon;
#endif
    return name ? matmamba_row_sums_plain : 0;
}

/* Where the row of a key lies; null if there is none, or it was not checked yet. */
static const uint16_t *row_at(const Table *table, int64_t key) {
    if (key < 0 || key >= table->keys) return 0;
    int64_t first = 0;
    for (int64_t end = table->parts_count; end - first > 1;) {
        int64_t middle = (first + end) / 2;
        if (table->parts[middle].start <= key) first = middle;
        else end = middle;
    }
    const Part *part = table->parts + first;
    int64_t row = key - part->start;
    if (row < 0 || row >= part->count || (part->checked && !part->checked[row / part->each])) return 0;
    return part->rows + row * table->row;
}

static void ask_for(const uint16_t *row, int64_t dim) {
    for (int64_t byte = 0; byte < 2 * dim; byte += LINE) __builtin_prefetch((const char *)row + byte, 0, 2);
}

/* Whether a hit stands before another: the greater score, then the smaller key; what is no number comes last. */
static int is_before(float score, int64_t key, float other, int64_t other_key) {
    if (score > other || score < other) return score > other;
    if (score != other && (score != score) != (other != other)) return score == score;
    return key < other_key;
}

/* The hits that were found so far, as a heap: the worst is its root. */
typedef struct {
    float *scores;
    int64_t *keys, count;
} Best;

static void swap(Best *best, int64_t a, int64_t b) {
    float score = best->scores[a];
    int64_t key = best->keys[a];
    best->scores[a] = best->scores[b], best->keys[a] = best->keys[b];
    best->scores[b] = score, best->keys[b] = key;
}

static int in_order(const Best *best, int64_t a, int64_t b) {
    return is_before(best->scores[a], best->keys[a], best->scores[b], best->keys[b]);
}

static void sift_down(Best *best, int64_t count) {
    for (int64_t at = 0, child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && in_order(best, child, child + 1)) child++;
        if (!in_order(best, at, child)) return;
        swap(best, at, child);
    }
}

static void keep(Best *best, int64_t most, float score, int64_t key) {
    if (best->count == most) {
        if (!most || !is_before(score, key, best->scores[0], best->keys[0])) return;
        best->scores[0] = score, best->keys[0] = key;
        sift_down(best, most);
        return;
    }
    int64_t at = best->count++;
    best->scores[at] = score, best->keys[at] = key;
    for (int64_t parent; at && in_order(best, parent = (at - 1) / 2, at); at = parent) swap(best, parent, at);
}

/* Best first; the rest of k places says that there is nothing. */
static void sort_best(Best *best, int64_t k) {
    for (int64_t count = best->count - 1; count > 0; count--) swap(best, 0, count), sift_down(best, count);
    for (int64_t at = best->count; at < k; at++) best->scores[at] = -INFINITY, best->keys[at] = -1;
}

/* Scores of up to CHUNK keys, those below 0 left out; 0 if a row cannot be read yet. */
static int keep_chunk(SumsFunction *sums_of, const Table *table, const float *query, int64_t dim,
                      const int64_t *keys, int64_t count, int64_t k, Best *best) {
    const uint16_t *rows[CHUNK];
    int64_t known[CHUNK], found = 0;
    for (int64_t i = 0; i < count; i++) {
        if (keys[i] < 0) continue;
        known[found] = keys[i];
        if (!(rows[found] = row_at(table, keys[i]))) return 0;
        if (found < AHEAD) ask_for(rows[found], dim);
        found++;
    }
    for (int64_t i = 0; i < found; i++) {
        if (i + AHEAD < found) ask_for(rows[i + AHEAD], dim);
        Sums sums = {0, 1};
        sums_of(rows[i], query, dim, dim < table->row, &sums);
        double length = sqrt(sums.squares);
        keep(best, k, (float)(sums.product / (length > 0x1p-126 ? length : 0x1p-126)), known[i]);
    }
    return 1;
}

/* The k best of each query's keys by cosine similarity of the leading `dim` coordinates; ties go to the smaller key.
 *
 * queries (nq, dim); keys (nq, count), below 0 where there is none; D, I (nq, k): -infinity and -1 where there are
 * fewer. 0 if that was done; 1 if a key is beyond the last, or its row was not checked: then nothing of it was
 * read; 2 if there are no such instructions. */
int matmamba_best_rows(const char *instructions, const Table *table, const float *queries, int64_t nq, int64_t dim,
                       const int64_t *keys, int64_t count, int64_t k, float *D, int64_t *I) {
    SumsFunction *sums_of = sums_by_name(instructions);
    if (!sums_of || dim > table->row) return 2;
    for (int64_t q = 0; q < nq; q++) {
        Best best = {D + q * k, I + q * k, 0};
        for (int64_t first = 0; first < count; first += CHUNK) {
            int64_t some = count - first < CHUNK ? count - first : CHUNK;
            if (!keep_chunk(sums_of, table, queries + q * dim, dim, keys + q * count + first, some, k, &best)) return 1;
        }
        sort_best(&best, k);
    }
    return 0;
}

/* So that a mirror that is out of date is noticed. */
int64_t matmamba_size_of_table(void) { return sizeof(Table); }
int64_t matmamba_size_of_part(void) { return sizeof(Part); }

#endif
