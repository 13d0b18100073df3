/* A frozen width: patches, Mamba2 blocks (arXiv 2405.21060, section 7), and the embedding of the pooled tokens.
 * One image at a time, so that what one step writes is in the cache when the next one reads it.
 *
 * And passes over tokens for PyTorch, which has the products between them: each reads and writes its data once,
 * forward or backward.
 *
 * The part without an instruction set (`instructions.h`) has the threads.
 *
 * A panel is PANEL neighbouring channels of all tokens, or of all rows of a matrix. Products write panels, and
 * what follows a product finds its panel in the first cache. Letters as in `ops`: L tokens, D model, H heads,
 * P head dim, I = H P channels, N state, K taps. No sum depends on how many threads there are.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "instructions.h"

/* Whether threads can be told where to run: Android's C library has no call for it. */
#if defined(__linux__) && !defined(__ANDROID__)
#define PLACES_THREADS
#endif

#define PANEL 32
#define LINE 16 /* floats in a cache line */
#define MOST_TAPS 8
/* Tokens that a tile of the scan has at most. */
#define TILE 14
/* Weights of a block beside a token's numbers in the stream, up to which threads share out the tokens: as measured. */
#define FEW_WEIGHTS 8
/* Of passes over tokens: channels of an image that a thread takes at a time, and as many that it sums up, ... */
#define BAND 128
/* ... tokens of them that it reads and writes before it goes on to other channels, and rows of gates. */
#define STEP 8
#define GATE_ROWS 64
#define SCAN_ROWS 16
/* A pass over fewer numbers is computed by one thread. */
#define ALONE 65536

/* `compiled.py` mirrors these. Channels come in panels, filled up with zeros; numbers of heads are rounded up to PANEL. */
typedef struct {
    int64_t length, dim, heads, head_dim, state, taps, chunk;
    /* Rows before it are not asked for: no output is computed for them. */
    int64_t first_row;
    float norm_epsilon, gate_epsilon;
    const float *project, *project_bias; /* panels of x, of z, then of B, C and dt side by side */
    const float *conv, *conv_bias;       /* (K, I + 2N): x, B, C */
    const float *rates, *skip;           /* (H,) */
    const float *out, *out_bias;         /* panels of D */
    const int64_t *order;                /* (L,) the row of the stream at each place of the scan */
} Block;

/* Patches are the first rows of the stream, in raster order. */
typedef struct {
    int64_t channels, height, width, patch_height, patch_width, dim, length;
    const float *weight;    /* panels of D, a row for each pixel of a patch and channel */
    const float *positions; /* (L, D) what each token has before its patch is added */
} Patches;

typedef struct {
    int64_t dim, length, pooled, embedding_dim;
    float epsilon;
    const int64_t *rows;                       /* (pooled,) of the stream: their mean is the embedding */
    const float *weight, *bias;                /* (D,) of the last norm */
    const float *projection, *projection_bias; /* panels of the embedding, or null */
} Ending;

/* Convolution and SiLU of contiguous tokens (B, L, X). The last tap is for the token itself. */
typedef struct {
    int64_t batch, length, channels, taps;
    const float *tokens, *kernel, *bias; /* (B, L, X), (X, K), (X,) */
    float *out;                          /* (B, L, X) */
    /* Backward, instead of `out`: the gradients of kernel, then bias, are summed for each image, and then of all. */
    const float *dout;
    float *dtokens, *sums, *total; /* (B, L, X), (B, K + 1, X), (K + 1, X) */
} Convolution;

/* out = weight y SiLU(z) / rms, the root mean square of y SiLU(z) over the channels; contiguous. */
typedef struct {
    int64_t rows, channels;
    const float *y, *z, *weight; /* (rows, X), (rows, X), (X,) */
    float *out, *scale;          /* (rows, X), (rows,) 1 / rms */
    float epsilon;
    /* Backward, instead of `out`: the gradient of the weight is summed for every GATE_ROWS rows, and then of all. */
    const float *dout;
    float *dy, *dz, *sums, *total; /* (rows, X), (rows, X), (parts, X), (X,) */
} Gate;

/* Where an image and where a row of it lie. */
typedef struct {
    int64_t image, row;
} Strides;

/* Rows of H heads of P channels, each head by a factor of its own: into = factors values + skip more + into. */
typedef struct {
    int64_t batch, rows, heads, head_dim;
    int64_t added; /* leading rows of an image to which what `into` has is added */
    Strides values_at, more_at, into_at;
    int64_t factors_image, skip_image; /* a row of factors is (H,) */
    const float *values, *factors;
    const float *more, *skip; /* null: nothing more */
    float *into;
} Weighing;

/* The end of a scan backward, of contiguous rows: sums over the channels of each head, and the gradient of x. */
typedef struct {
    int64_t rows, heads, head_dim;
    const float *dinput, *x, *dy, *y; /* (rows, H, P); dinput: gradient of dt x */
    const float *dt, *skip;           /* (rows, H), (H,) */
    float *dx;                        /* (rows, H, P) dinput dt + dy skip; may be `dinput` */
    float *dinput_x, *dy_x, *dy_y;    /* (rows, H) */
} ScanEnd;

/* Sums over the first dimension, in its order. */
typedef struct {
    int64_t count, columns;
    const float *sums; /* (count, columns) */
    float *total;      /* (columns,) */
} Total;

/* Memory of one thread, or of all that work on one image. */
typedef struct {
    float *tokens, *transposed_B, *C, *steps, *scores, *within, *before, *after, *forget, *gated, *squares;
    float *x, *weighted, *z, *state, *tile, *factors, *inputs;
} Scratch;

/* Where threads meet, and how many parts of the work until the next meeting were taken. */
typedef struct {
    int64_t waiting, round, taken;
} Barrier;

/* The threads that work on one image; one alone has nobody to wait for. */
typedef struct {
    int64_t rank, size;
    Barrier *barrier;
} Team;

typedef void BlockFunction(const Block *, const Block *next, float *stream, Team, Scratch shared, Scratch own);
typedef void PatchFunction(const Patches *, const float *image, float *stream, Team, Scratch shared);
typedef void EndingFunction(const Ending *, const float *stream, float *embedding, Scratch own);
/* A part of a pass; each comes out alike, whoever computes it. */
typedef void PassFunction(const void *pass, int64_t part);
typedef struct {
    const char *name;
    BlockFunction *block;
    PatchFunction *patches;
    EndingFunction *ending;
    PassFunction *convolution, *convolution_back, *gate, *gate_back, *total, *weighing, *scan_end;
} Kernels;

static inline int64_t rounded(int64_t number, int64_t to) { return (number + to - 1) / to * to; }
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
/* Channels I, and as many as their panels have. */
static inline int64_t inner(const Block *block) { return block->heads * block->head_dim; }
static inline int64_t padded(const Block *block) { return rounded(inner(block), PANEL); }

void matmamba_meet(Team team);

#ifdef ISA

/* The first tap of token t that does not read before the sequence. */
static inline int64_t first_tap(int64_t taps, int64_t t) { return t + 1 < taps ? taps - 1 - t : 0; }

/* The next part that nobody has taken since the last meeting: cores are not equally fast. `taken` is the thread's own. */
static inline int64_t next_part(Team team, int64_t *taken) {
    return team.size == 1 ? (*taken)++ : __atomic_fetch_add(&team.barrier->taken, 1, __ATOMIC_RELAXED);
}

#if defined(__AVX512F__)
#define LANES 16
#define VECTORS 2 /* of a product's columns at a time */
#define ROWS 14   /* of a product at a time: as many as registers hold */
#elif defined(__AVX2__)
#define LANES 8
#define VECTORS 2
#define ROWS 6
#else
#define LANES 4
#define VECTORS 4
#define ROWS 5
#endif

typedef float V __attribute__((vector_size(LANES * 4)));
typedef int32_t VI __attribute__((vector_size(LANES * 4)));
typedef float U __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE V load(const float *at) { return *(const U *)at; }
INLINE void store(float *at, V value) { *(U *)at = value; }
INLINE V all(float value) { return value - (V){0}; }
INLINE V larger(V x, V y) {
    VI is_x = x > y;
    return (V)((is_x & (VI)x) | (~is_x & (VI)y));
}

/* e to the power of each; below and above what float32 can hold, the nearest it can. To 2 units in the last place. */
INLINE V exponential(V x) {
    x = larger(all(-87.3f), x);
    x = -larger(all(-88.0f), -x);
    V shifted = x * 1.44269504f + 12582912.0f;
    VI power = (VI)shifted << 23;
    V whole = shifted - 12582912.0f;
    V rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    V sum = 1.3888889e-3f * rest + 8.3333333e-3f;
    sum = sum * rest + 4.1666667e-2f;
    sum = sum * rest + 1.6666667e-1f;
    sum = sum * rest + 0.5f;
    sum = sum * rest + 1.0f;
    sum = sum * rest + 1.0f;
    return sum * (V)(power + (127 << 23));
}

/* Channels at the end of a row may be fewer than a vector has. */
INLINE V load_some(const float *at, int64_t count) {
    if (count == LANES) return load(at);
    V value = all(0.0f);
    memcpy(&value, at, count * 4);
    return value;
}
INLINE void store_some(float *at, V value, int64_t count) {
    if (count == LANES) store(at, value);
    else memcpy(at, &value, count * 4);
}

INLINE V silu(V x) { return x / (1.0f + exponential(-x)); }

/* log(1 + e^x) = max(x, 0) + log1p(y), y = e^-|x|, by the series of 2 artanh(y / (2 + y)). */
INLINE V softplus(V x) {
    V positive = larger(x, all(0.0f));
    V y = exponential(x - 2.0f * positive);
    V s = y / (2.0f + y), square = s * s;
    V sum = square * (1.0f / 15) + 1.0f / 13;
    sum = sum * square + 1.0f / 11;
    sum = sum * square + 1.0f / 9;
    sum = sum * square + 1.0f / 7;
    sum = sum * square + 1.0f / 5;
    sum = sum * square + 1.0f / 3;
    sum = sum * square + 1.0f;
    return positive + 2.0f * s * sum;
}

INLINE float sum_of(V x) {
    float sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += x[lane];
    return sum;
}

INLINE float wide_sum_of(V x) {
    double sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += x[lane];
    return (float)sum;
}

/* A few rows of a product: their sums stay in registers. A cache line of `ahead`, if it is given, is fetched at each
 * step: weights lie too far away to be waited for. */
INLINE void product_rows(const int rows, const int vectors, int64_t depth, const float *a, int64_t lda, const float *b,
                         int64_t ldb, const float *bias, float *c, int64_t ldc, int add, const float *ahead) {
    V sums[ROWS][VECTORS];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sums[r][v] = add ? load(c + r * ldc + v * LANES) : bias ? load(bias + v * LANES) : all(0.0f);
    for (int64_t k = 0; k < depth; k++) {
        V row[VECTORS];
        if (ahead) __builtin_prefetch(ahead + k * LINE, 0, 2);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) row[v] = load(b + k * ldb + v * LANES);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sums[r][v] += a[r * lda + k] * row[v];
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) store(c + r * ldc + v * LANES, sums[r][v]);
}

#define CASE(R)                                                                                  \
    case R:                                                                                      \
        if (R <= ROWS) product_rows(R <= ROWS ? R : 1, vectors, depth, a, lda, b, ldb, bias, c, ldc, add, \
                                    ahead); \
        break;

INLINE void product_columns(const int vectors, int64_t rows, int64_t depth, const float *a, int64_t lda,
                            const float *b, int64_t ldb, const float *bias, float *c, int64_t ldc, int add,
                            const float *ahead) {
    const float *end = ahead ? ahead + depth * PANEL : 0;
    /* Nearly equal tiles: none is left with a row or two. */
    for (int64_t tiles = (rows + ROWS - 1) / ROWS; tiles > 0; tiles--) {
        int64_t size = (rows + tiles - 1) / tiles;
        switch (size) {
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7)
            CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14)
        }
        a += size * lda, c += size * ldc, rows -= size;
        if (ahead && (ahead += depth * LINE) >= end) ahead = 0;
    }
}

/* c = bias + a b, or c += a b: a (rows, depth), b (depth, columns), columns a multiple of 16. Meanwhile a panel of the
 * same depth is fetched from `ahead`, or nothing. */
static void product_and_fetch(int64_t rows, int64_t depth, int64_t columns, const float *a, int64_t lda, const float *b,
                              int64_t ldb, const float *bias, float *c, int64_t ldc, int add, const float *ahead) {
    int64_t first = 0;
    for (; first + VECTORS * LANES <= columns; first += VECTORS * LANES, ahead = 0)
        product_columns(VECTORS, rows, depth, a, lda, b + first, ldb, bias ? bias + first : 0, c + first, ldc, add, ahead);
    for (; first < columns; first += LANES, ahead = 0)
        product_columns(1, rows, depth, a, lda, b + first, ldb, bias ? bias + first : 0, c + first, ldc, add, ahead);
}
static void product(int64_t rows, int64_t depth, int64_t columns, const float *a, int64_t lda, const float *b,
                    int64_t ldb, const float *bias, float *c, int64_t ldc, int add) {
    product_and_fetch(rows, depth, columns, a, lda, b, ldb, bias, c, ldc, add, 0);
}

/* A row with mean 0 and variance 1. */
static void normalise(int64_t dim, float epsilon, const float *row, float *into) {
    V sum = all(0.0f), squares = all(0.0f);
    for (int64_t d = 0; d < dim; d += LANES) sum += load(row + d);
    float mean = sum_of(sum) / dim;
    for (int64_t d = 0; d < dim; d += LANES) {
        V apart = load(row + d) - mean;
        squares += apart * apart;
    }
    float scale = 1.0f / __builtin_sqrtf(sum_of(squares) / dim + epsilon);
    for (int64_t d = 0; d < dim; d += LANES) store(into + d, (load(row + d) - mean) * scale);
}

/* What a causal convolution gives a token. `first`: where its first tap reads, `from`: the first one that there is. */
INLINE V convolved(int64_t taps, int64_t from, const float *first, int64_t row, int64_t count, const V *weights, V bias) {
    V sum = bias;
    if (taps == 4 && from == 0) {
        sum += load_some(first, count) * weights[0] + load_some(first + row, count) * weights[1];
        sum += load_some(first + 2 * row, count) * weights[2] + load_some(first + 3 * row, count) * weights[3];
    } else {
        for (int64_t k = from; k < taps; k++) sum += load_some(first + k * row, count) * weights[k];
    }
    return sum;
}

/* Causal convolution and SiLU of some tokens of a panel in place: from the last one to the first, which no later one
 * reads. The few tokens before them are read as they are. */
static void convolve(const Block *block, int64_t channel, int64_t columns, int64_t from, int64_t to, float *panel) {
    int64_t taps = block->taps, channels = inner(block) + 2 * block->state;
    for (int64_t v = 0; v < columns; v += LANES) {
        V weights[MOST_TAPS], bias = load(block->conv_bias + channel + v);
        for (int64_t k = 0; k < taps; k++) weights[k] = load(block->conv + k * channels + channel + v);
        for (int64_t t = to - 1; t >= from; t--) {
            const float *first = panel + (t - taps + 1) * PANEL + v;
            V sum = convolved(taps, first_tap(taps, t), first, PANEL, LANES, weights, bias);
            store(panel + t * PANEL + v, silu(sum));
        }
    }
}

/* Some tokens of a panel of B, C or the step sizes, from where they were computed to where heads read them. */
static void place_shared(const Block *block, int64_t column, int64_t from, int64_t to, const float *raw, Scratch s) {
    int64_t N = block->state, heads = rounded(block->heads, 16), row = rounded(block->length, PANEL) + PANEL;
    if (column < N) {
        for (int64_t n = 0; n < 16; n++)
            for (int64_t j = from; j < to; j++) s.transposed_B[(column + n) * row + j] = raw[j * PANEL + n];
    } else if (column < 2 * N) {
        for (int64_t i = from; i < to; i++) memcpy(s.C + i * N + column - N, raw + i * PANEL, 64);
    } else {
        for (int64_t i = from; i < to; i++)
            for (int64_t v = 0; v < 16; v += LANES)
                store(s.steps + i * heads + column - 2 * N + v, softplus(load(raw + i * PANEL + v)));
    }
}

/* Whether threads share out the tokens of a block, and not its channels: where weights are few beside the tokens. Then
 * each reads all weights, but they meet twice and not four times, and fetch from each other what the scan reads of earlier
 * tokens alone, not the whole stream. A state between chunks would be computed by each of them. */
static int shares_tokens(const Block *block, Team team) {
    int64_t columns = 3 * inner(block) + 2 * block->state;
    return team.size > 1 && block->chunk >= block->length && columns <= FEW_WEIGHTS * block->length;
}

/* Places of the scan, from the first to behind the last. */
typedef struct {
    int64_t first, last;
} Part;

/* What the convolution of a part reads before it. */
static int64_t behind(const Block *block, Part part) { return part.first - least(part.first, block->taps - 1); }

/* Products of the first tokens up to t, if each pair of them takes so many more. */
static int64_t products_of(const Block *block, int64_t t, int64_t of_pair) {
    return t * block->dim * (3 * inner(block) + 2 * block->state) + t * t / 2 * of_pair;
}

/* Where a part begins: all take equally long, each but the first with what its convolution reads before it. */
static int64_t begin_of(const Block *block, int64_t number, int64_t size, int64_t of_pair) {
    int64_t again = products_of(block, least(block->length, block->taps - 1), of_pair), t = 0;
    int64_t before = again + (products_of(block, block->length, of_pair) - again) * number / size;
    while (number && products_of(block, t, of_pair) < before) t++;
    return t;
}

/* A thread's part where they share out the tokens. If the scan runs backwards, parts are counted from the other end, so
 * that a thread keeps the rows of the stream that it has. */
static Part part_of(const Block *block, Team team, int64_t of_pair) {
    int backwards = block->order[0] > block->order[block->length / 2];
    int64_t number = backwards ? team.size - 1 - team.rank : team.rank;
    return (Part){begin_of(block, number, team.size, of_pair), begin_of(block, number + 1, team.size, of_pair)};
}

static const float *shared_weights(const Block *block) { return block->project + 2 * padded(block) * block->dim; }
static const float *gate_weights(const Block *block, int64_t channel) {
    return block->project + (padded(block) + channel) * block->dim;
}

/* Columns of the projection of some tokens, convolved, in `own.x`. `channel`: the first of x, B and C side by side. */
static void project_inputs(const Block *block, int64_t channel, int64_t column, int64_t columns, Part part,
                           const float *ahead, Scratch s, Scratch own) {
    int64_t dim = block->dim, from = behind(block, part);
    product_and_fetch(part.last - from, dim, columns, s.tokens + from * dim, dim, block->project + column * dim, PANEL,
                      block->project_bias + column, own.x + from * PANEL, PANEL, 0, ahead);
    convolve(block, channel, columns, part.first, part.last, own.x);
}

/* B, C and the step sizes: what all heads share. Panels are too few to be dealt evenly, so each thread takes some
 * tokens of all of them; what a convolution reads before these is computed once more. `then`: what is multiplied next. */
static void project_shared(const Block *block, Part part, const float *then, Scratch s, Scratch own) {
    int64_t N = block->state, dim = block->dim, columns = 2 * N + rounded(block->heads, 16), first = 2 * padded(block);
    for (int64_t at = 0; at < columns; at += PANEL) {
        int64_t size = least(PANEL, columns - at), from = part.first;
        const float *weights = shared_weights(block) + at * dim;
        const float *ahead = at + PANEL < columns ? weights + PANEL * dim : then;
        if (at < 2 * N)
            project_inputs(block, inner(block) + at, first + at, size, part, ahead, s, own);
        else
            product_and_fetch(part.last - from, dim, size, s.tokens + from * dim, dim, weights, PANEL,
                              block->project_bias + first + at, own.x + from * PANEL, PANEL, 0, ahead);
        for (int64_t half = 0; half < size; half += 16)
            place_shared(block, at + half, part.first, part.last, own.x + half, s);
    }
}

/* Channels of one panel. */
typedef struct {
    int64_t first, count;
} Columns;

typedef struct {
    int64_t chunk, first, last; /* tokens: where its chunk begins, where it begins, behind its end */
} Tile;

/* The tiles of a sequence: nearly equal parts of chunks, chunks nearly equal parts of the sequence. */
static int tiles_of(const Block *block, int64_t at, Tile *tile) {
    if (at >= block->length) return 0;
    int64_t L = block->length, chunks = (L + block->chunk - 1) / block->chunk, size = (L + chunks - 1) / chunks;
    int64_t chunk = at / size * size, end = chunk + size < L ? chunk + size : L, count = (end - at + TILE - 1) / TILE;
    *tile = (Tile){chunk, at, at + (end - at + count - 1) / count};
    return 1;
}

/* What the scan of a tile needs of every head: scores C B^T with and without decays, and the decays. */
static void weigh(const Block *block, Part asked, Team team, Scratch s) {
    int64_t N = block->state, heads = rounded(block->heads, 16), row = rounded(block->length, PANEL) + PANEL;
    int64_t taken = 0, mine = next_part(team, &taken);
    Tile tile;
    for (int64_t at = 0, number = 0; at < asked.last && tiles_of(block, at, &tile); at = tile.last, number++) {
        if (number != mine) continue;
        mine = next_part(team, &taken);
        int64_t from = most(tile.first, asked.first), to = least(tile.last, asked.last), seen = to - tile.chunk;
        if (from < to)
            product(to - from, N, rounded(seen, 16), s.C + from * N, N, s.transposed_B + tile.chunk, row, 0,
                    s.scores + from * row, row, 0);
        for (int64_t h = 0; h < heads; h += LANES) {
            V decays[TILE], decayed = all(1.0f), rate = load(block->rates + h);
            for (int64_t i = tile.first; i < to; i++) {
                V step = load(s.steps + i * heads + h), decay = exponential(step * rate);
                const float *scores = s.scores + i * row + tile.first - tile.chunk;
                float *within = s.within + i * TILE * heads + h;
                int64_t here = i - tile.first;
                decayed *= decay;
                for (int64_t j = 0; j < here; j++) decays[j] *= decay;
                decays[here] = step;
                if (i >= from)
                    for (int64_t j = 0; j <= here; j++) store(within + j * heads, decays[j] * scores[j]);
                store(s.after + i * heads + h, decayed);
            }
            for (int64_t j = tile.first; j < to; j++) store(s.before + j * heads + h, decays[j - tile.first]);
            store(s.forget + number * heads + h, decayed);
        }
    }
}

/* The outputs of a tile, in the place of its inputs: from the last row, which no earlier one reads. */
static void scan_tile(const Block *block, Tile tile, int64_t from, int64_t to, Columns at, Scratch s, Scratch own) {
    int64_t heads = rounded(block->heads, 16);
    for (int64_t v = 0; v < at.count; v += LANES) {
        int64_t head = (at.first + v) / block->head_dim;
        float skip = block->skip[head];
        for (int64_t i = to - 1; i >= from; i--) {
            const float *within = s.within + i * TILE * heads + head, *inputs = own.x + tile.first * PANEL + v;
            V sum = load(own.tile + (i - from) * PANEL + v) * s.after[i * heads + head];
            V other = load(own.x + i * PANEL + v) * skip;
            int64_t seen = i - tile.first + 1, j = 0;
            for (; j + 1 < seen; j += 2) {
                sum += load(inputs + j * PANEL) * within[j * heads];
                other += load(inputs + (j + 1) * PANEL) * within[(j + 1) * heads];
            }
            if (j < seen) sum += load(inputs + j * PANEL) * within[j * heads];
            store(own.x + i * PANEL + v, sum + other);
        }
    }
}

static void scale_rows(const Block *block, Columns at, int64_t rows, float *panel, const float *by) {
    for (int64_t v = 0; v < at.count; v += LANES) {
        float factor = by[(at.first + v) / block->head_dim];
        for (int64_t j = 0; j < rows; j++) store(panel + j * PANEL + v, load(panel + j * PANEL + v) * factor);
    }
}

/* The scan of one panel of x, in place. Inputs behind the tile are weighted by their decay to its beginning. */
static void scan(const Block *block, Part asked, Columns columns, Scratch s, Scratch own) {
    int64_t L = block->length, N = block->state, heads = rounded(block->heads, 16), row = rounded(L, PANEL) + PANEL;
    Tile tile;
    for (int64_t at = 0, number = 0; at < asked.last && tiles_of(block, at, &tile); at = tile.last, number++) {
        int64_t from = most(tile.first, asked.first), to = least(tile.last, asked.last);
        int64_t rows = to - from, past = tile.first - tile.chunk;
        float *weighted = own.weighted + tile.chunk * PANEL;
        if (rows > 0) {
            product(rows, past, columns.count, s.scores + from * row, row, weighted, PANEL, 0, own.tile, PANEL, 0);
            if (tile.chunk) product(rows, N, columns.count, s.C + from * N, N, own.state, PANEL, 0, own.tile, PANEL, 1);
        }
        if (tile.last < asked.last) {
            scale_rows(block, columns, past, weighted, s.forget + number * heads);
            if (tile.chunk) scale_rows(block, columns, N, own.state, s.forget + number * heads);
            memcpy(weighted + past * PANEL, own.x + tile.first * PANEL, (tile.last - tile.first) * PANEL * 4);
            for (int64_t j = tile.first; j < tile.last; j++)
                scale_rows(block, columns, 1, own.weighted + j * PANEL, s.before + j * heads);
            Tile next = tile;
            tiles_of(block, tile.last, &next);
            if (next.chunk != tile.chunk)
                product(N, tile.last - tile.chunk, columns.count, s.transposed_B + tile.chunk, row, weighted, PANEL, 0,
                        own.state, PANEL, tile.chunk > 0);
        }
        if (rows > 0) scan_tile(block, tile, from, to, columns, s, own);
    }
}

/* One panel of channels, from the inputs of its scan in `own.x` to gated outputs, and the sums of their squares. */
static void mix_panel(const Block *block, Part asked, int64_t channel, const float *ahead, Scratch s, Scratch own) {
    int64_t L = block->length, dim = block->dim, row = padded(block), from = asked.first;
    Columns columns = {channel, least(PANEL, inner(block) - channel)};
    scan(block, asked, columns, s, own);
    product_and_fetch(asked.last - from, dim, columns.count, s.tokens + from * dim, dim, gate_weights(block, channel), PANEL,
                      block->project_bias + row + channel, own.z, PANEL, 0, ahead);
    for (int64_t i = from; i < asked.last; i++) {
        V squares = all(0.0f);
        for (int64_t v = 0; v < columns.count; v += LANES) {
            V gated = load(own.x + i * PANEL + v) * silu(load(own.z + (i - from) * PANEL + v));
            squares += gated * gated;
            store(s.gated + i * row + channel + v, gated);
        }
        s.squares[channel / PANEL * L + i] = sum_of(squares);
    }
}

/* One over the root mean square of each row of gated outputs. */
static void norm_factors(const Block *block, Part asked, Scratch s, float *factors) {
    int64_t L = block->length, I = inner(block);
    for (int64_t i = asked.first; i < asked.last; i++) {
        float sum = 0;
        for (int64_t panel = 0; panel * PANEL < I; panel++) sum += s.squares[panel * L + i];
        factors[i] = 1.0f / __builtin_sqrtf(sum / I + block->gate_epsilon);
    }
}

/* Adds to the stream what the block has to say. */
static void project_back(const Block *block, const Block *next, Part asked, float *stream, Team team, Scratch s,
                         Scratch own) {
    int64_t dim = block->dim, row = padded(block), from = asked.first;
    norm_factors(block, asked, s, own.factors);
    for (int64_t taken = 0, d; (d = next_part(team, &taken) * PANEL) < dim;) {
        int64_t columns = least(PANEL, dim - d), later = d + team.size * PANEL;
        const float *ahead = later < dim ? block->out + later * inner(block) : next ? shared_weights(next) : 0;
        product_and_fetch(asked.last - from, inner(block), columns, s.gated + from * row, row, block->out + d * inner(block),
                          PANEL, 0, own.z, PANEL, 0, ahead);
        for (int64_t i = from; i < asked.last; i++)
            for (int64_t v = 0; v < columns; v += LANES) {
                float *into = stream + block->order[i] * dim + d + v;
                store(into, load(into) + load(block->out_bias + d + v)
                                + load(own.z + (i - from) * PANEL + v) * own.factors[i]);
            }
    }
}

static void normalise_tokens(const Block *block, int64_t from, int64_t to, const float *stream, float *tokens) {
    for (int64_t i = from; i < to; i++)
        normalise(block->dim, block->norm_epsilon, stream + block->order[i] * block->dim, tokens + i * block->dim);
}

/* Threads take panels of channels as they come. */
static void block_by_channels(const Block *block, const Block *next, float *stream, Team team, Scratch s, Scratch own) {
    int64_t dim = block->dim, L = block->length, I = inner(block), step = team.size * PANEL, taken = 0, channel;
    Part every = {0, L}, asked = {block->first_row, L};
    const float *out = block->out + team.rank * PANEL * I;
    /* Every thread normalises all tokens: it would have to fetch those of others, and to wait for them. */
    s.tokens = own.tokens;
    normalise_tokens(block, 0, L, stream, s.tokens);
    project_shared(block, part_of(block, team, 0), block->project + team.rank * PANEL * dim, s, own);
    matmamba_meet(team);
    weigh(block, asked, team, s);
    matmamba_meet(team);
    while ((channel = next_part(team, &taken) * PANEL) < I) {
        const float *later = channel + step < I ? block->project + (channel + step) * dim : out;
        project_inputs(block, channel, channel, least(PANEL, I - channel), every, gate_weights(block, channel), s, own);
        mix_panel(block, asked, channel, later, s, own);
    }
    matmamba_meet(team);
    project_back(block, next, asked, stream, team, s, own);
    matmamba_meet(team);
}

/* Each thread has a part of the tokens, and for the rest is alone; of the tokens before it needs what the scan reads. */
static void block_by_tokens(const Block *block, const Block *next, float *stream, Team team, Scratch s, Scratch own) {
    int64_t dim = block->dim, L = block->length, I = inner(block), asked_from = block->first_row;
    Part part = part_of(block, team, I + block->state), asked = {most(part.first, asked_from), most(part.last, asked_from)};
    Team alone = {0, 1, 0};
    Scratch mine = own;
    mine.transposed_B = s.transposed_B, mine.steps = s.steps;
    normalise_tokens(block, behind(block, part), part.last, stream, mine.tokens);
    project_shared(block, part, block->project, mine, own);
    for (int64_t channel = 0; channel < I; channel += PANEL) {
        const float *later = channel + PANEL < I ? block->project + (channel + PANEL) * dim : gate_weights(block, 0);
        project_inputs(block, channel, channel, least(PANEL, I - channel), part, later, mine, own);
        memcpy(s.inputs + channel * L + part.first * PANEL, own.x + part.first * PANEL,
               (part.last - part.first) * PANEL * 4);
    }
    matmamba_meet(team);
    if (asked.first < asked.last) {
        weigh(block, asked, alone, mine);
        for (int64_t channel = 0; channel < I; channel += PANEL) {
            const float *later = channel + PANEL < I ? gate_weights(block, channel + PANEL) : block->out;
            memcpy(own.x, s.inputs + channel * L, asked.last * PANEL * 4);
            mix_panel(block, asked, channel, later, mine, own);
        }
        project_back(block, next, asked, stream, alone, mine, own);
    }
    matmamba_meet(team);
}

static void JOIN(block_, ISA)(const Block *block, const Block *next, float *stream, Team team, Scratch s, Scratch own) {
    (shares_tokens(block, team) ? block_by_tokens : block_by_channels)(block, next, stream, team, s, own);
}

static void gather_patch(const Patches *p, const float *image, int64_t patch, float *row) {
    int64_t across = p->width / p->patch_width, top = patch / across * p->patch_height;
    int64_t left = patch % across * p->patch_width;
    for (int64_t c = 0; c < p->channels; c++)
        for (int64_t y = 0; y < p->patch_height; y++, row += p->patch_width)
            memcpy(row, image + (c * p->height + top + y) * p->width + left, p->patch_width * 4);
}

static void JOIN(patches_, ISA)(const Patches *p, const float *image, float *stream, Team team, Scratch s) {
    int64_t count = (p->height / p->patch_height) * (p->width / p->patch_width);
    int64_t depth = p->channels * p->patch_height * p->patch_width;
    int64_t first = count * team.rank / team.size, last = count * (team.rank + 1) / team.size;
    int64_t end = team.rank + 1 < team.size ? last : p->length;
    for (int64_t patch = first; patch < last; patch++) gather_patch(p, image, patch, s.gated + patch * depth);
    memcpy(stream + first * p->dim, p->positions + first * p->dim, (end - first) * p->dim * 4);
    for (int64_t d = 0; d < p->dim; d += PANEL)
        product_and_fetch(last - first, depth, least(PANEL, p->dim - d), s.gated + first * depth, depth, p->weight + d * depth,
                          PANEL, 0, stream + first * p->dim + d, p->dim, 1, p->weight + (d + PANEL) * depth);
    matmamba_meet(team);
}

/* The embedding of one image, of length 1. */
static void JOIN(ending_, ISA)(const Ending *e, const float *stream, float *embedding, Scratch own) {
    int64_t dim = e->dim;
    float *pooled = own.tokens, *row = own.tokens + dim;
    memset(pooled, 0, dim * 4);
    for (int64_t i = 0; i < e->pooled; i++) {
        normalise(dim, e->epsilon, stream + e->rows[i] * dim, row);
        for (int64_t d = 0; d < dim; d += LANES) store(pooled + d, load(pooled + d) + load(row + d));
    }
    for (int64_t d = 0; d < dim; d += LANES)
        store(pooled + d, load(pooled + d) / (float)e->pooled * load(e->weight + d) + load(e->bias + d));
    if (!e->projection) memcpy(embedding, pooled, dim * 4);
    for (int64_t d = 0; e->projection && d < e->embedding_dim; d += PANEL) {
        product(1, dim, PANEL, pooled, dim, e->projection + d * dim, PANEL, e->projection_bias + d, row, PANEL, 0);
        memcpy(embedding + d, row, least(PANEL, e->embedding_dim - d) * 4);
    }
    float sum = 0;
    for (int64_t d = 0; d < e->embedding_dim; d++) sum += embedding[d] * embedding[d];
    float length = __builtin_sqrtf(sum);
    /* A number too small to divide by is no direction; what is not a number stays none. */
    float scale = 1.0f / (length < 1e-12f ? 1e-12f : length);
    for (int64_t d = 0; d < e->embedding_dim; d++) embedding[d] *= scale;
}

/* What a part of a convolution keeps at hand: BAND channels of one image. */
typedef struct {
    V weights[BAND / LANES][MOST_TAPS], bias[BAND / LANES];
    V later[BAND / LANES][MOST_TAPS];    /* gradients of the sums of the tokens behind */
    V sums[BAND / LANES][MOST_TAPS + 1]; /* gradients of taps and bias */
    int64_t first, count, at;            /* channels, and the first number of the image */
} Band;

static void begin_band(const Convolution *c, int64_t part, Band *band) {
    int64_t bands = (c->channels + BAND - 1) / BAND;
    memset(band, 0, sizeof *band);
    band->first = part % bands * BAND;
    band->count = least(BAND, c->channels - band->first);
    band->at = part / bands * c->length * c->channels + band->first;
    for (int64_t x = 0; x < band->count; x++) {
        for (int64_t k = 0; k < c->taps; k++)
            band->weights[x / LANES][k][x % LANES] = c->kernel[(band->first + x) * c->taps + k];
        band->bias[x / LANES][x % LANES] = c->bias[band->first + x];
    }
}

/* A vector of channels of some tokens. */
INLINE void convolve_step(const Convolution *c, const Band *band, int64_t taps, int64_t v, int64_t count, int64_t first,
                          int64_t last) {
    const V *weights = band->weights[v / LANES], bias = band->bias[v / LANES];
    for (int64_t t = first; t < last; t++) {
        int64_t at = band->at + t * c->channels + v;
        V sum = convolved(taps, first_tap(taps, t), c->tokens + at - (taps - 1) * c->channels, c->channels, count,
                          weights, bias);
        store_some(c->out + at, silu(sum), count);
    }
}

/* As `convolve_step`, from the last token to the first: a token's gradient has those of the sums that read it. */
INLINE void convolve_step_back(const Convolution *c, Band *band, int64_t taps, int64_t v, int64_t count, int64_t first,
                               int64_t last) {
    const V *weights = band->weights[v / LANES];
    V later[MOST_TAPS], sums[MOST_TAPS + 1], seen[MOST_TAPS] = {0};
#pragma GCC unroll 8
    for (int64_t k = 0; k < taps; k++) later[k] = band->later[v / LANES][k], sums[k] = all(0.0f);
    sums[taps] = all(0.0f);
    for (int64_t t = last - 1; t >= first; t--) {
        int64_t at = band->at + t * c->channels + v, from = first_tap(taps, t);
        V sum = band->bias[v / LANES];
#pragma GCC unroll 8
        for (int64_t k = 0; k < taps; k++) {
            seen[k] = k < from ? all(0.0f) : load_some(c->tokens + at + (k + 1 - taps) * c->channels, count);
            sum += seen[k] * weights[k];
        }
        V sigmoid = 1.0f / (1.0f + exponential(-sum));
        V d = load_some(c->dout + at, count) * sigmoid * (1.0f + sum * (1.0f - sigmoid));
#pragma GCC unroll 8
        for (int64_t k = taps - 1; k > 0; k--) later[k] = later[k - 1];
        later[0] = d;
        V dtoken = all(0.0f);
#pragma GCC unroll 8
        for (int64_t k = 0; k < taps; k++) dtoken += later[k] * weights[taps - 1 - k];
#pragma GCC unroll 8
        for (int64_t k = 0; k < taps; k++) sums[k] += d * seen[k];
        sums[taps] += d;
        store_some(c->dtokens + at, dtoken, count);
    }
#pragma GCC unroll 8
    for (int64_t k = 0; k < taps; k++) band->later[v / LANES][k] = later[k], band->sums[v / LANES][k] += sums[k];
    band->sums[v / LANES][taps] += sums[taps];
}

/* Whole vectors, and 4 taps, are known to the compiler. */
#define STEP_OF(STEP_FUNCTION)                                                              \
    for (int64_t v = 0; v < band.count; v += LANES) {                                       \
        if (band.count - v < LANES)                                                         \
            STEP_FUNCTION(c, &band, c->taps, v, band.count - v, first, last);               \
        else if (c->taps == 4)                                                              \
            STEP_FUNCTION(c, &band, 4, v, LANES, first, last);                              \
        else                                                                                \
            STEP_FUNCTION(c, &band, c->taps, v, LANES, first, last);                        \
    }

static void JOIN(convolution_, ISA)(const void *pass, int64_t part) {
    const Convolution *c = pass;
    Band band;
    begin_band(c, part, &band);
    for (int64_t first = 0; first < c->length; first += STEP) {
        int64_t last = least(first + STEP, c->length);
        STEP_OF(convolve_step)
    }
}

static void JOIN(convolution_back_, ISA)(const void *pass, int64_t part) {
    const Convolution *c = pass;
    Band band;
    begin_band(c, part, &band);
    for (int64_t last = c->length; last > 0; last -= STEP) {
        int64_t first = last > STEP ? last - STEP : 0;
        STEP_OF(convolve_step_back)
    }
    int64_t image = part / ((c->channels + BAND - 1) / BAND);
    for (int64_t k = 0; k <= c->taps; k++)
        for (int64_t v = 0; v < band.count; v += LANES)
            store_some(c->sums + (image * (c->taps + 1) + k) * c->channels + band.first + v, band.sums[v / LANES][k],
                       least(LANES, band.count - v));
}

/* What is to be done with each vector of a row, at x; its `count` is known to the compiler but at the end. */
#define EACH_VECTOR(CHANNELS, ...)                                                              \
    do {                                                                                        \
        int64_t x = 0;                                                                          \
        for (const int64_t count = LANES; x + LANES <= (CHANNELS); x += LANES) __VA_ARGS__      \
        for (const int64_t count = (CHANNELS) - x; x < (CHANNELS); x = (CHANNELS)) __VA_ARGS__  \
    } while (0)

static void JOIN(gate_, ISA)(const void *pass, int64_t part) {
    const Gate *g = pass;
    int64_t X = g->channels;
    for (int64_t row = part * GATE_ROWS; row < least((part + 1) * GATE_ROWS, g->rows); row++) {
        const float *y = g->y + row * X, *z = g->z + row * X;
        float *out = g->out + row * X;
        V squares = all(0.0f);
        EACH_VECTOR(X, {
            V gated = load_some(y + x, count) * silu(load_some(z + x, count));
            squares += gated * gated;
            store_some(out + x, gated, count);
        });
        float scale = g->scale[row] = 1.0f / __builtin_sqrtf(sum_of(squares) / X + g->epsilon);
        EACH_VECTOR(X, store_some(out + x, load_some(out + x, count) * scale * load_some(g->weight + x, count), count););
    }
}

/* Sigmoids wait in the place of z's gradient for the sum over the row. */
static void gate_row_back(const Gate *g, int64_t row, float *sums) {
    int64_t X = g->channels, at = row * X;
    const float *y = g->y + at, *z = g->z + at, *dout = g->dout + at;
    float *dy = g->dy + at, *dz = g->dz + at, scale = g->scale[row];
    V products = all(0.0f);
    EACH_VECTOR(X, {
        V gate = load_some(z + x, count), sigmoid = 1.0f / (1.0f + exponential(-gate));
        V product = load_some(dout + x, count) * load_some(y + x, count) * gate * sigmoid * scale;
        store_some(sums + x, load_some(sums + x, count) + product, count);
        products += product * load_some(g->weight + x, count);
        store_some(dz + x, sigmoid, count);
    });
    float along = sum_of(products) / X * scale;
    EACH_VECTOR(X, {
        V gate = load_some(z + x, count), sigmoid = load_some(dz + x, count), value = load_some(y + x, count);
        V silu = gate * sigmoid;
        V dgated = (load_some(dout + x, count) * load_some(g->weight + x, count) - value * silu * along) * scale;
        store_some(dy + x, dgated * silu, count);
        store_some(dz + x, dgated * value * sigmoid * (1.0f + gate * (1.0f - sigmoid)), count);
    });
}

static void JOIN(gate_back_, ISA)(const void *pass, int64_t part) {
    const Gate *g = pass;
    float *sums = g->sums + part * g->channels;
    memset(sums, 0, g->channels * 4);
    for (int64_t row = part * GATE_ROWS; row < least((part + 1) * GATE_ROWS, g->rows); row++)
        gate_row_back(g, row, sums);
}

static void JOIN(total_, ISA)(const void *pass, int64_t part) {
    const Total *t = pass;
    int64_t first = part * BAND, columns = least(BAND, t->columns - first);
    memset(t->total + first, 0, columns * 4);
    for (int64_t row = 0; row < t->count; row++)
        EACH_VECTOR(columns, {
            float *total = t->total + first + x;
            store_some(total, load_some(total, count) + load_some(t->sums + row * t->columns + first + x, count), count);
        });
}

INLINE void weigh_head(const int skips, const int adds, int64_t channels, float factor, const float *values, float skip,
                       const float *more, float *into) {
    EACH_VECTOR(channels, {
        V sum = load_some(values + x, count) * factor;
        if (skips) sum += load_some(more + x, count) * skip;
        if (adds) sum += load_some(into + x, count);
        store_some(into + x, sum, count);
    });
}

INLINE void weigh_row(const int skips, const int adds, const Weighing *w, int64_t image, int64_t row) {
    int64_t P = w->head_dim;
    const float *values = w->values + image * w->values_at.image + row * w->values_at.row;
    const float *factors = w->factors + image * w->factors_image + row * w->heads;
    const float *skip = skips ? w->skip + image * w->skip_image : 0;
    const float *more = skips ? w->more + image * w->more_at.image + row * w->more_at.row : 0;
    float *into = w->into + image * w->into_at.image + row * w->into_at.row;
    for (int64_t h = 0; h < w->heads; h++)
        weigh_head(skips, adds, P, factors[h], values + h * P, skips ? skip[h] : 0, skips ? more + h * P : 0,
                   into + h * P);
}

static void JOIN(weighing_, ISA)(const void *pass, int64_t part) {
    const Weighing *w = pass;
    int64_t parts = (w->rows + SCAN_ROWS - 1) / SCAN_ROWS, image = part / parts, first = part % parts * SCAN_ROWS;
    for (int64_t row = first; row < least(first + SCAN_ROWS, w->rows); row++) {
        if (w->more) weigh_row(1, 0, w, image, row);
        else if (row < w->added) weigh_row(0, 1, w, image, row);
        else weigh_row(0, 0, w, image, row);
    }
}

static void JOIN(scan_end_, ISA)(const void *pass, int64_t part) {
    const ScanEnd *e = pass;
    int64_t P = e->head_dim, first = part * SCAN_ROWS * e->heads;
    for (int64_t head = first; head < least(first + SCAN_ROWS * e->heads, e->rows * e->heads); head++) {
        const float *dinput = e->dinput + head * P, *values = e->x + head * P, *dy = e->dy + head * P;
        const float *y = e->y + head * P, step = e->dt[head], skip = e->skip[head % e->heads];
        V dinput_x = all(0.0f), dy_x = all(0.0f), dy_y = all(0.0f);
        EACH_VECTOR(P, {
            V value = load_some(values + x, count), d = load_some(dy + x, count), input = load_some(dinput + x, count);
            dinput_x += input * value, dy_x += d * value, dy_y += d * load_some(y + x, count);
            store_some(e->dx + head * P + x, input * step + d * skip, count);
        });
        /* In double precision: the gradient of a decay is what is left of these sums when they cancel. */
        e->dinput_x[head] = wide_sum_of(dinput_x), e->dy_x[head] = wide_sum_of(dy_x);
        e->dy_y[head] = wide_sum_of(dy_y);
    }
}

const Kernels JOIN(matmamba_kernels_, ISA) = {
    TEXT(ISA),
    JOIN(block_, ISA), JOIN(patches_, ISA), JOIN(ending_, ISA),
    JOIN(convolution_, ISA), JOIN(convolution_back_, ISA), JOIN(gate_, ISA), JOIN(gate_back_, ISA), JOIN(total_, ISA),
    JOIN(weighing_, ISA), JOIN(scan_end_, ISA),
};

#else /* The part that is compiled once. */

#if defined(__x86_64__)
#include <immintrin.h>
extern const Kernels matmamba_kernels_avx2, matmamba_kernels_avx512;
#elif defined(__aarch64__)
extern const Kernels matmamba_kernels_neon;
#endif

/* The kernels of an instruction set that this processor has; nothing where there are none for it. */
static const Kernels *kernels_by_name(const char *name) {
    name = matmamba_instructions(name);
    if (!name) return 0;
#if defined(__x86_64__)
    if (!strcmp(name, "avx512")) return &matmamba_kernels_avx512;
    if (!strcmp(name, "avx2")) return &matmamba_kernels_avx2;
#elif defined(__aarch64__)
    if (!strcmp(name, "neon")) return &matmamba_kernels_neon;
#endif
    return 0;
}

/* Numbers this small add nothing, and cost a hundred times as much as others. */
static uint64_t flush_tiny(void) {
#if defined(__x86_64__)
    uint64_t before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);
#elif defined(__aarch64__)
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" ::"r"(before | (1 << 24)));
#else
    uint64_t before = 0;
#endif
    return before;
}

static void restore_tiny(uint64_t before) {
#if defined(__x86_64__)
    _mm_setcsr(before);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" ::"r"(before));
#endif
}

/* Pauses before a thread that waits gives its core away. */
#define SPINS 2000

static void pause_briefly(int64_t *spins) {
#if defined(__x86_64__)
    _mm_pause();
#endif
    /* Somebody else may need this core to come to the meeting. */
    if (++*spins > SPINS) sched_yield();
}

void matmamba_meet(Team team) {
    if (team.size == 1) return;
    Barrier *barrier = team.barrier;
    int64_t round = __atomic_load_n(&barrier->round, __ATOMIC_ACQUIRE), spins = 0;
    if (__atomic_add_fetch(&barrier->waiting, 1, __ATOMIC_ACQ_REL) == team.size) {
        __atomic_store_n(&barrier->waiting, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&barrier->taken, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&barrier->round, round + 1, __ATOMIC_RELEASE);
        return;
    }
    while (__atomic_load_n(&barrier->round, __ATOMIC_ACQUIRE) == round) pause_briefly(&spins);
}

/* What threads do together: each is told which of how many it is. */
typedef void Work(void *job, int64_t rank, int64_t size);

typedef struct Pool Pool;
typedef struct {
    Pool *pool;
    int64_t rank;
    pthread_t thread;
} Worker;

/* Threads that sleep until there is work. The one that asks for it is the first of them. */
struct Pool {
    int64_t size, generation, calls, closing;
    /* Who looks out for work; of the present work: who did when it came, who has not begun yet, and who has not ended. */
    int64_t awake, ready, late, left;
    pthread_mutex_t mutex;
    pthread_cond_t begun;
    Work *work;
    void *job;
    Worker *workers;
#if defined(PLACES_THREADS)
    cpu_set_t cores; /* where workers are woken */
#endif
};

static int this_core(void) {
#if defined(__linux__)
    return sched_getcpu();
#else
    return -1;
#endif
}

/* Workers are woken on other cores than that of the thread that asks. The system often wakes them behind it, with
 * another core idle, and there they wait for longer than a small image takes. Whether there are others, as far as known. */
static int spare_own_core(Pool *pool) {
    int64_t others = 1;
#if defined(PLACES_THREADS)
    cpu_set_t cores;
    int core = this_core();
    if (core < 0 || core >= CPU_SETSIZE || sched_getaffinity(0, sizeof cores, &cores)) return 1;
    if ((others = CPU_COUNT(&cores) - 1)) CPU_CLR(core, &cores);
    if (CPU_EQUAL(&cores, &pool->cores)) return others > 0;
    pool->cores = cores;
    for (int64_t rank = 1; rank < pool->size; rank++)
        pthread_setaffinity_np(pool->workers[rank].thread, sizeof cores, &cores);
#else
    (void)pool;
#endif
    return others > 0;
}

/* A worker that was woken before there is work looks out for it, a millisecond or so. */
static void look_out(const Pool *pool, int64_t seen) {
    for (int64_t spins = 0; spins < 2 * SPINS && __atomic_load_n(&pool->generation, __ATOMIC_RELAXED) == seen;)
        pause_briefly(&spins);
}

static void *worker_main(void *argument) {
    Worker *worker = argument;
    Pool *pool = worker->pool;
    int64_t seen = 0, heard = 0, early = 0;
    for (;;) {
        pthread_mutex_lock(&pool->mutex);
        pool->awake -= early;
        while (pool->generation == seen && pool->calls == heard && !pool->closing)
            pthread_cond_wait(&pool->begun, &pool->mutex);
        early = pool->generation == seen;
        seen = pool->generation, heard = pool->calls;
        pool->awake += early;
        int64_t closing = pool->closing, wanted = !early && pool->late > 0;
        pool->late -= wanted;
        pthread_mutex_unlock(&pool->mutex);
        if (closing) return 0;
        if (early) look_out(pool, seen);
        if (!wanted) continue;
        pool->work(pool->job, worker->rank, pool->size);
        __atomic_sub_fetch(&pool->left, 1, __ATOMIC_ACQ_REL);
    }
}

/* Work comes at once: whoever asks has something to prepare, and workers take as long to wake. */
void matmamba_pool_wake(Pool *pool) {
    if (pool->size == 1 || !spare_own_core(pool)) return;
    pthread_mutex_lock(&pool->mutex);
    pool->calls++;
    pthread_cond_broadcast(&pool->begun);
    pthread_mutex_unlock(&pool->mutex);
}

/* Done when it returns. `all`: every thread has a part of its own; otherwise those that come too late are left out. */
static void run_on(Pool *pool, Work *work, void *job, int all) {
    if (pool->size > 1) {
        spare_own_core(pool);
        pthread_mutex_lock(&pool->mutex);
        pool->work = work, pool->job = job, pool->ready = pool->awake;
        pool->late = pool->left = pool->size - 1;
        __atomic_store_n(&pool->generation, pool->generation + 1, __ATOMIC_RELAXED);
        pthread_cond_broadcast(&pool->begun);
        pthread_mutex_unlock(&pool->mutex);
    }
    work(job, 0, pool->size);
    if (!all) {
        pthread_mutex_lock(&pool->mutex);
        __atomic_sub_fetch(&pool->left, pool->late, __ATOMIC_ACQ_REL);
        pool->late = 0;
        pthread_mutex_unlock(&pool->mutex);
    }
    int64_t spins = 0;
    while (__atomic_load_n(&pool->left, __ATOMIC_ACQUIRE)) pause_briefly(&spins);
}

void matmamba_pool_free(Pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    pool->closing = 1;
    pthread_cond_broadcast(&pool->begun);
    pthread_mutex_unlock(&pool->mutex);
    for (int64_t rank = 1; rank < pool->size; rank++) pthread_join(pool->workers[rank].thread, 0);
    free(pool->workers), free(pool);
}

/* Fewer threads where no more can be had, null for none. One piece of work at a time. */
Pool *matmamba_pool_new(int64_t threads) {
    Pool *pool = calloc(1, sizeof *pool);
    if (!pool || !(pool->workers = calloc(threads, sizeof *pool->workers))) return free(pool), (Pool *)0;
    pthread_mutex_init(&pool->mutex, 0);
    pthread_cond_init(&pool->begun, 0);
    for (pool->size = 1; pool->size < threads; pool->size++) {
        Worker *worker = &pool->workers[pool->size];
        *worker = (Worker){pool, pool->size, 0};
        if (pthread_create(&worker->thread, 0, worker_main, worker)) break;
    }
    return pool;
}

/* The next `count` floats of a thread's memory, from a cache line on. */
static float *take(int64_t *taken, float *memory, int64_t count) {
    float *here = memory ? memory + *taken : 0;
    *taken += rounded(count, 16);
    return here;
}

/* Where each part lies in a thread's memory; without memory, only how many floats are needed. */
static int64_t lay_out(const Block *b, int64_t most_pixels, float *memory, Scratch *s) {
    int64_t L = b->length, N = b->state, heads = rounded(b->heads, PANEL), row = rounded(L, PANEL) + PANEL, taken = 0;
    s->tokens = take(&taken, memory, (L + 2) * b->dim + PANEL);
    /* Scores are computed by 16, a few more than there are. */
    s->transposed_B = take(&taken, memory, N * row + PANEL);
    s->scores = take(&taken, memory, L * row + PANEL);
    s->C = take(&taken, memory, L * N);
    s->steps = take(&taken, memory, L * heads);
    s->before = take(&taken, memory, L * heads);
    s->after = take(&taken, memory, L * heads);
    s->forget = take(&taken, memory, L * heads);
    s->within = take(&taken, memory, L * TILE * heads);
    s->gated = take(&taken, memory, most_pixels > L * padded(b) ? most_pixels : L * padded(b));
    s->squares = take(&taken, memory, padded(b) / PANEL * L);
    s->inputs = take(&taken, memory, L * padded(b));
    s->x = take(&taken, memory, L * PANEL);
    s->weighted = take(&taken, memory, L * PANEL);
    s->z = take(&taken, memory, L * PANEL);
    s->state = take(&taken, memory, N * PANEL);
    s->tile = take(&taken, memory, TILE * PANEL);
    s->factors = take(&taken, memory, L);
    return taken;
}

/* What blocks are computed in: a part for each thread of a pool. */
typedef struct {
    int64_t count;
    Scratch *scratch;
    float **parts;
} Memory;

void matmamba_memory_free(Memory *memory) {
    for (int64_t rank = 0; memory->parts && rank < memory->count; rank++) free(memory->parts[rank]);
    free(memory->parts), free(memory->scratch), free(memory);
}

static int add_part(Memory *memory, int64_t rank, const Block *largest, int64_t most_pixels) {
    Scratch *scratch = &memory->scratch[rank];
    int64_t bytes = lay_out(largest, most_pixels, 0, scratch) * 4;
    if (posix_memalign((void **)&memory->parts[rank], 64, bytes)) return memory->parts[rank] = 0, 0;
    /* Zeros, because what fills up panels is multiplied too. */
    memset(memory->parts[rank], 0, bytes);
    lay_out(largest, most_pixels, memory->parts[rank], scratch);
    return 1;
}

/* Memory for the threads of a pool, and for blocks no larger than `largest`; null if there is not enough.
 * `most_pixels`: numbers in all patches of an image. */
Memory *matmamba_memory_new(const Pool *pool, const Block *largest, int64_t most_pixels) {
    Memory *memory = calloc(1, sizeof *memory);
    if (!memory) return 0;
    memory->count = pool->size;
    memory->scratch = calloc(memory->count, sizeof *memory->scratch);
    memory->parts = calloc(memory->count, sizeof *memory->parts);
    int64_t rank = 0;
    if (memory->scratch && memory->parts)
        while (rank < memory->count && add_part(memory, rank, largest, most_pixels)) rank++;
    return rank == memory->count ? memory : (matmamba_memory_free(memory), (Memory *)0);
}

/* Images for each thread below which nobody waits for a thread that is still asleep. */
#define FEW 4
/* Images of which all streams are in memory at once. */
#define MOST_IMAGES 64

/* Images that all threads compute; the fields are those of `matmamba_run`. */
typedef struct {
    const Pool *pool;
    const Kernels *kernels;
    const Memory *memory;
    const Patches *patches;
    const Block *blocks;
    int64_t count;
    const Ending *ending;
    const float *images;
    int64_t batch, stream_row;
    float *stream, *embeddings;
    Barrier barrier;
    /* Of few images: how many threads have come, and which turn it is and for how many of them. */
    int64_t came, turn;
    /* The core of the thread that asked, as far as the system tells. */
    int core;
} Batch;

/* Step -1 is the patches, then the blocks. */
static void work_step(const Batch *b, int64_t step, int64_t image, Team team, Scratch shared, Scratch own) {
    float *stream = b->stream + image * b->stream_row;
    const Patches *p = b->patches;
    if (step < 0)
        b->kernels->patches(p, b->images + image * p->channels * p->height * p->width, stream, team, shared);
    else
        b->kernels->block(b->blocks + step, step + 1 < b->count ? b->blocks + step + 1 : 0, stream, team, shared, own);
}

static void work_ending(const Batch *b, int64_t image, Scratch own) {
    b->kernels->ending(b->ending, b->stream + image * b->stream_row, b->embeddings + image * b->ending->embedding_dim, own);
}

/* A turn is a step of an image; its number and the size of its team are read at once. */
#define MOST_THREADS 1024
static void take_turn(Batch *b, int64_t turn, int64_t rank) {
    int64_t number = turn / MOST_THREADS - 1, size = turn % MOST_THREADS;
    const Scratch *scratch = b->memory->scratch;
    if (rank < size)
        work_step(b, number / b->batch - 1, number % b->batch, (Team){rank, size, &b->barrier}, scratch[0],
                  scratch[rank]);
}

/* Few images, by all threads together: whoever wakes late joins at the next turn, and nobody waits for him. */
static void work_few(void *job, int64_t rank, int64_t size) {
    Batch *b = job;
    uint64_t before = flush_tiny();
    int64_t steps = b->count + 1;
    if (rank == 0) {
        /* Who looks out is there at once, unless the system gave its core away. */
        int64_t ready = size > 1 ? b->pool->ready : 0;
        for (int64_t spins = 0; spins < SPINS && __atomic_load_n(&b->came, __ATOMIC_ACQUIRE) < ready;)
            pause_briefly(&spins);
        for (int64_t number = 0; number < steps * b->batch; number++) {
            int64_t came = __atomic_load_n(&b->came, __ATOMIC_ACQUIRE);
            int64_t turn = (number + 1) * MOST_THREADS + 1 + least(came, least(size, MOST_THREADS) - 1);
            __atomic_store_n(&b->turn, turn, __ATOMIC_RELEASE);
            take_turn(b, turn, 0);
        }
        __atomic_store_n(&b->turn, -1, __ATOMIC_RELEASE);
        for (int64_t image = 0; image < b->batch; image++) work_ending(b, image, b->memory->scratch[0]);
    } else {
        /* On one core, two threads that wait for each other take longer than one alone. */
        while (b->core >= 0 && this_core() == b->core && __atomic_load_n(&b->turn, __ATOMIC_ACQUIRE) >= 0)
            sched_yield();
        int64_t place = __atomic_add_fetch(&b->came, 1, __ATOMIC_ACQ_REL), seen = 0, spins = 0;
        for (int64_t turn; (turn = __atomic_load_n(&b->turn, __ATOMIC_ACQUIRE)) >= 0; pause_briefly(&spins)) {
            if (turn == seen) continue;
            seen = turn, spins = 0;
            if (turn) take_turn(b, turn, place);
        }
    }
    restore_tiny(before);
}

/* A thread's part: images of its own, then what is left over together with all others. */
static void work_batch(void *job, int64_t rank, int64_t size) {
    Batch *b = job;
    const Scratch *scratch = b->memory->scratch;
    int64_t alone = b->batch / size * size;
    uint64_t before = flush_tiny();
    for (int64_t step = -1; step < b->count; step++)
        for (int64_t image = rank; image < alone; image += size)
            work_step(b, step, image, (Team){0, 1, 0}, scratch[rank], scratch[rank]);
    Team team = {rank, size, &b->barrier};
    if (alone < b->batch) matmamba_meet(team);
    for (int64_t step = -1; step < b->count; step++)
        for (int64_t image = alone; image < b->batch; image++)
            work_step(b, step, image, team, scratch[0], scratch[rank]);
    for (int64_t image = rank; image < b->batch; image += size) work_ending(b, image, scratch[rank]);
    restore_tiny(before);
}

static void run_images(Pool *pool, Batch job) {
    /* To wake a thread can take longer than an image: many images are worth it in any case. */
    int few = job.batch < FEW * pool->size;
    run_on(pool, few ? work_few : work_batch, &job, !few);
}

/* The embeddings (batch, embedding_dim) of images (batch, C, height, width): patches, blocks and ending. 0 if all was done,
 * 1 if there are no such instructions, 2 if there is not enough memory. One call at a time for each pool. */
int matmamba_run(Pool *pool, const Memory *memory, const char *instructions, const Patches *patches,
                 const Block *blocks, int64_t count, const Ending *ending, const float *images, int64_t batch,
                 float *embeddings) {
    const Kernels *kernels = kernels_by_name(instructions);
    if (!kernels) return 1;
    int64_t row = patches->length * patches->dim, pixels = patches->channels * patches->height * patches->width;
    float *stream;
    if (posix_memalign((void **)&stream, 64, least(batch, MOST_IMAGES) * row * 4)) return 2;
    for (int64_t first = 0; first < batch; first += MOST_IMAGES)
        run_images(pool, (Batch){.pool = pool, .kernels = kernels, .memory = memory, .patches = patches, .blocks = blocks,
                                 .count = count, .ending = ending, .images = images + first * pixels,
                                 .batch = least(batch - first, MOST_IMAGES), .stream_row = row, .stream = stream,
                                 .embeddings = embeddings + first * ending->embedding_dim, .core = this_core()});
    free(stream);
    return 0;
}

/* Parts of which threads take the next one until there is none. */
typedef struct {
    PassFunction *part;
    const void *pass;
    int64_t count, next;
} Parts;

static void work_parts(void *job, int64_t rank, int64_t size) {
    (void)rank, (void)size;
    Parts *parts = job;
    uint64_t before = flush_tiny();
    for (int64_t next; (next = __atomic_fetch_add(&parts->next, 1, __ATOMIC_RELAXED)) < parts->count;)
        parts->part(parts->pass, next);
    restore_tiny(before);
}

/* `numbers`: how many are computed. Few are not worth waking somebody. */
static void run_parts(Pool *pool, PassFunction *part, const void *pass, int64_t count, int64_t numbers) {
    Parts parts = {part, pass, count, 0};
    if (numbers < ALONE) work_parts(&parts, 0, 1);
    else run_on(pool, work_parts, &parts, 0);
}

static void run_total(Pool *pool, const Kernels *kernels, int64_t count, int64_t columns, const float *sums,
                      float *total) {
    Total pass = {count, columns, sums, total};
    run_parts(pool, kernels->total, &pass, (columns + BAND - 1) / BAND, count * columns);
}

/* Forward, or with `dout` backward. 0 if it was done; one call at a time for each pool. */
int matmamba_convolve(Pool *pool, const char *instructions, const Convolution *c) {
    const Kernels *kernels = kernels_by_name(instructions);
    if (!kernels) return 1;
    int64_t parts = c->batch * ((c->channels + BAND - 1) / BAND);
    PassFunction *part = c->dout ? kernels->convolution_back : kernels->convolution;
    run_parts(pool, part, c, parts, c->batch * c->length * c->channels);
    if (c->dout) run_total(pool, kernels, c->batch, (c->taps + 1) * c->channels, c->sums, c->total);
    return 0;
}

/* As `matmamba_convolve`. */
int matmamba_gate(Pool *pool, const char *instructions, const Gate *g) {
    const Kernels *kernels = kernels_by_name(instructions);
    if (!kernels) return 1;
    int64_t parts = (g->rows + GATE_ROWS - 1) / GATE_ROWS;
    run_parts(pool, g->dout ? kernels->gate_back : kernels->gate, g, parts, g->rows * g->channels);
    if (g->dout) run_total(pool, kernels, parts, g->channels, g->sums, g->total);
    return 0;
}

/* As `matmamba_convolve`. */
int matmamba_weigh(Pool *pool, const char *instructions, const Weighing *w) {
    const Kernels *kernels = kernels_by_name(instructions);
    if (!kernels) return 1;
    int64_t parts = w->batch * ((w->rows + SCAN_ROWS - 1) / SCAN_ROWS);
    run_parts(pool, kernels->weighing, w, parts, w->batch * w->rows * w->heads * w->head_dim);
    return 0;
}

/* As `matmamba_convolve`. */
int matmamba_end_scan(Pool *pool, const char *instructions, const ScanEnd *e) {
    const Kernels *kernels = kernels_by_name(instructions);
    if (!kernels) return 1;
    int64_t parts = (e->rows + SCAN_ROWS - 1) / SCAN_ROWS;
    run_parts(pool, kernels->scan_end, e, parts, e->rows * e->heads * e->head_dim);
    return 0;
}

/* So that a mirror that is out of date is noticed: the sizes of what is handed over. */
int64_t matmamba_size_of(const char *name) {
    static const struct {
        const char *name;
        int64_t size;
    } known[] = {{"Block", sizeof(Block)},
                 {"Patches", sizeof(Patches)},
                 {"Ending", sizeof(Ending)},
                 {"Convolution", sizeof(Convolution)},
                 {"Gate", sizeof(Gate)},
                 {"Weighing", sizeof(Weighing)},
                 {"ScanEnd", sizeof(ScanEnd)}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(name, known[i].name)) return known[i].size;
    return 0;
}

#endif
