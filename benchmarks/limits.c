/* What memory allows: read, copy, copy past the caches, update in place. Each makes `passes` passes over its bytes.
 *
 * Sizes are bytes and multiples of 64; `to` of stream_copy is aligned to 64 bytes. The barriers keep the compiler from
 * merging passes or dropping their results.
 */
#include <stddef.h>
#include <stdint.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define BARRIER __asm__ volatile("" ::: "memory")
#define AHEAD 4096 /* bytes of prefetch, worth 25 % to one thread that reads, nothing to the others */

typedef uint64_t line __attribute__((vector_size(64), aligned(4), may_alias));

uint64_t read_bytes(const char *from, size_t size, size_t passes) {
    line a = {0}, b = {0}, c = {0}, d = {0};
    for (size_t pass = 0; pass < passes; pass++) {
        size_t i = 0;
        for (; i + 256 <= size; i += 256) {
            __builtin_prefetch(from + i + AHEAD);
            __builtin_prefetch(from + i + AHEAD + 64);
            __builtin_prefetch(from + i + AHEAD + 128);
            __builtin_prefetch(from + i + AHEAD + 192);
            a ^= *(const line *)(from + i);
            b ^= *(const line *)(from + i + 64);
            c ^= *(const line *)(from + i + 128);
            d ^= *(const line *)(from + i + 192);
        }
        for (; i < size; i += 64) a ^= *(const line *)(from + i);
        BARRIER;
    }
    a ^= b ^ c ^ d;
    return a[0] ^ a[1] ^ a[2] ^ a[3] ^ a[4] ^ a[5] ^ a[6] ^ a[7];
}

void copy_bytes(const char *from, char *to, size_t size, size_t passes) {
    for (size_t pass = 0; pass < passes; pass++) {
        for (size_t i = 0; i < size; i += 64) {
            *(line *)(to + i) = *(const line *)(from + i);
        }
        BARRIER;
    }
}

void stream_copy(const char *from, char *to, size_t size, size_t passes) {
    for (size_t pass = 0; pass < passes; pass++) {
        for (size_t i = 0; i < size; i += 64) {
#if defined(__AVX512F__)
            _mm512_stream_si512((void *)(to + i), _mm512_loadu_si512((const void *)(from + i)));
#elif defined(__AVX__)
            for (int k = 0; k < 64; k += 32)
                _mm256_stream_si256((__m256i *)(to + i + k), _mm256_loadu_si256((const __m256i *)(from + i + k)));
#elif defined(__SSE2__)
            for (int k = 0; k < 64; k += 16)
                _mm_stream_si128((__m128i *)(to + i + k), _mm_loadu_si128((const __m128i *)(from + i + k)));
#else
            *(line *)(to + i) = *(const line *)(from + i);
#endif
        }
#if defined(__SSE2__)
        _mm_sfence();
#endif
        BARRIER;
    }
}

/* x ^= key with a key of 0 that the compiler does not know: the bytes that x *= a moves, whatever the type of x. */
void update_in_place(char *x, size_t size, size_t passes, uint64_t key) {
    line keys = {key, key, key, key, key, key, key, key};
    for (size_t pass = 0; pass < passes; pass++) {
        for (size_t i = 0; i < size; i += 64) {
            *(line *)(x + i) ^= keys;
        }
        BARRIER;
    }
}
