/*
 * Writes the erasure code's test vectors with ISA-L, as text, to standard output.
 *
 * The vectors exist so that a mistake shared by our encoder and decoder cannot hide, and so that anybody's ISA-L
 * can be shown to read our fragments: before a scheme is written, ISA-L itself loses as many fragments as the
 * scheme survives and decodes them again. check.sh compares the output with the committed file.
 *
 * Input bytes: state = state * 6364136223846793005 + 1442695040888963407 (mod 2^64), byte = state >> 56, starting
 * from state = k * 65536 + n * 256 + length mod 256; data fragment 0 first, then 1, and so on without a gap.
 * Hashes are FNV-1a with 64 bits.
 */
#include <isa-l/erasure_code.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHORT_BYTES 64
#define LONG_BYTES 10007 /* prime: no kernel's vector divides it */
#define HEX_ROWS_MAX 10

static uint64_t fnv1a(uint64_t hash, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

static const uint64_t FNV_START = 0xcbf29ce484222325u;

static void fail(const char *why, int k, int n)
{
    fprintf(stderr, "%s: k=%d n=%d\n", why, k, n);
    exit(1);
}

static void *allocate(size_t bytes)
{
    void *memory = calloc(1, bytes);
    if (!memory)
        fail("out of memory", 0, 0);
    return memory;
}

/* n fragments of `length` bytes, one after another. */
static uint8_t *encode(int k, int n, int length, uint8_t *matrix)
{
    uint8_t *all = allocate((size_t)n * length);
    uint8_t *tables = allocate((size_t)32 * k * (n - k));
    uint8_t *fragments[255];
    uint64_t state = (uint64_t)k * 65536 + n * 256 + length % 256;

    for (int i = 0; i < k * length; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        all[i] = state >> 56;
    }
    for (int i = 0; i < n; i++)
        fragments[i] = all + (size_t)i * length;
    ec_init_tables(k, n - k, matrix + k * k, tables);
    ec_encode_data(length, k, n - k, tables, fragments, fragments + k);
    free(tables);
    return all;
}

/* Loses the first n - k fragments, or all data when there are fewer, and decodes them from the last k. */
static void decode(int k, int n, int length, const uint8_t *matrix, uint8_t *all)
{
    int first = n - k, lost = first < k ? first : k;
    uint8_t *rows = allocate((size_t)k * k), *inverse = allocate((size_t)k * k);
    uint8_t *tables = allocate((size_t)32 * k * lost), *out = allocate((size_t)lost * length);
    uint8_t *sources[255], *rebuilt[255];

    for (int i = 0; i < k; i++) {
        memcpy(rows + i * k, matrix + (first + i) * k, k);
        sources[i] = all + (size_t)(first + i) * length;
    }
    for (int i = 0; i < lost; i++)
        rebuilt[i] = out + (size_t)i * length;
    if (gf_invert_matrix(rows, inverse, k) != 0)
        fail("matrix has no inverse", k, n);
    /* The inverse's rows are the data fragments, so its first rows are those that were lost. */
    ec_init_tables(k, lost, inverse, tables);
    ec_encode_data(length, k, lost, tables, sources, rebuilt);
    if (memcmp(out, all, (size_t)lost * length) != 0)
        fail("decoded bytes differ", k, n);
    free(rows);
    free(inverse);
    free(tables);
    free(out);
}

int main(void)
{
    static const int schemes[][2] = { { 2, 3 },   { 3, 5 },    { 4, 8 },     { 10, 20 },  { 20, 40 },
                                      { 29, 80 }, { 64, 128 }, { 128, 255 }, { 2, 255 }, { 254, 255 } };

    puts("# Made by crates/erasure/isal/vectors.c with ISA-L; do not edit. Hashes are FNV-1a 64.");
    puts("# matrix k n hash            all n rows of gf_gen_cauchy1_matrix");
    puts("# parity k n length row hex  one parity fragment");
    puts("# hash k n length hash       all parity fragments one after another");
    for (size_t s = 0; s < sizeof schemes / sizeof *schemes; s++) {
        int k = schemes[s][0], n = schemes[s][1];
        uint8_t *matrix = allocate((size_t)n * k);
        uint8_t *all;

        gf_gen_cauchy1_matrix(matrix, n, k);
        printf("matrix %d %d %016llx\n", k, n, (unsigned long long)fnv1a(FNV_START, matrix, (size_t)n * k));

        all = encode(k, n, SHORT_BYTES, matrix);
        for (int row = k; row < n; row++) {
            /* Of the larger schemes the first and the last row are enough: the hashes cover all of them. */
            if (n - k > HEX_ROWS_MAX && row != k && row != n - 1)
                continue;
            printf("parity %d %d %d %d ", k, n, SHORT_BYTES, row);
            for (int i = 0; i < SHORT_BYTES; i++)
                printf("%02x", all[row * SHORT_BYTES + i]);
            putchar('\n');
        }
        decode(k, n, SHORT_BYTES, matrix, all);
        free(all);

        all = encode(k, n, LONG_BYTES, matrix);
        printf("hash %d %d %d %016llx\n", k, n, LONG_BYTES,
               (unsigned long long)fnv1a(FNV_START, all + (size_t)k * LONG_BYTES, (size_t)(n - k) * LONG_BYTES));
        decode(k, n, LONG_BYTES, matrix, all);
        free(all);
        free(matrix);
    }
    return 0;
}
