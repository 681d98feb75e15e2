/* Time in nanoseconds, and how long each of very many things took. */
#ifndef LATENCIES_H
#define LATENCIES_H
#include <stdint.h>
#include <string.h>
#include <time.h>

#define SECOND 1000000000ULL

static uint64_t clock_now(clockid_t clock)
{
    struct timespec at;
    clock_gettime(clock, &at);
    return (uint64_t)at.tv_sec * SECOND + (uint64_t)at.tv_nsec;
}

/* 64 buckets for each power of two: a percentile is at most 1.6 % too high. */
#define BUCKETS (64 * 60)
static uint64_t latencies[BUCKETS], latency_count, latency_max;

static void add_latency(uint64_t value)
{
    unsigned shift = value < 128 ? 0 : 57 - (unsigned)__builtin_clzll(value);
    latencies[shift * 64 + (value >> shift)]++;
    latency_count++;
    if (value > latency_max)
        latency_max = value;
}

static double percentile_us(double part)
{
    uint64_t seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        unsigned shift = i < 128 ? 0 : i / 64 - 1;
        seen += latencies[i];
        if (seen && (double)seen >= part * (double)latency_count) {
            uint64_t top = ((uint64_t)(i - shift * 64) + 1) << shift;
            return (double)(top < latency_max ? top : latency_max) / 1000;
        }
    }
    return 0;
}

static void forget_latencies(void)
{
    memset(latencies, 0, sizeof latencies);
    latency_count = latency_max = 0;
}
#endif
