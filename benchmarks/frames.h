/* Frames of RFC 6455, section 5.2, as a client sends and receives them. */
#ifndef FRAMES_H
#define FRAMES_H
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h>

enum opcode { TEXT = 1, CLOSE = 8, PING = 9, PONG = 10 };

#define MAX_FRAME_HEAD 14

struct frame {
    unsigned char first;        /* FIN, reserved bits and opcode */
    bool is_masked;
    size_t head;                /* bytes before the payload */
    uint64_t length;            /* of the payload */
};

static uint64_t random_state;

static bool seed_random(void)
{
    return getrandom(&random_state, sizeof random_state, 0) == sizeof random_state && random_state;
}

static uint32_t random_32(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 32);
}

static void put_masked(unsigned char *to, const void *data, size_t length)
{
    const unsigned char *from = data;
    uint32_t mask = random_32();
    uint64_t wide = (uint64_t)mask << 32 | mask, word;
    memcpy(to, &mask, 4);
    for (to += 4; length >= 8; to += 8, from += 8, length -= 8) {
        memcpy(&word, from, 8);
        word ^= wide;
        memcpy(to, &word, 8);
    }
    for (size_t i = 0; i < length; i++)
        to[i] = from[i] ^ ((unsigned char *)&mask)[i % 4];
}

/* Return how many bytes of the extended length there are. */
static unsigned length_bytes(size_t length)
{
    return length < 126 ? 0 : length < 65536 ? 2 : 8;
}

static size_t frame_size(size_t length)
{
    return 2 + length_bytes(length) + 4 + length;
}

/* Write a whole masked frame of `frame_size(length)` bytes. */
static void put_frame(unsigned char *to, enum opcode opcode, const void *data, size_t length)
{
    unsigned bytes = length_bytes(length);
    *to++ = (unsigned char)(0x80 | opcode);
    *to++ = (unsigned char)(0x80 | (bytes == 0 ? length : bytes == 2 ? 126 : 127));
    for (unsigned i = bytes; i-- > 0;)
        *to++ = (unsigned char)(length >> (8 * i));
    put_masked(to, data, length);
}

/* Return whether the head of a frame is whole, and read it. */
static bool get_frame(struct frame *frame, const unsigned char *at, size_t available)
{
    if (available < 2)
        return false;
    unsigned bytes = at[1] < 126 ? 0 : at[1] == 126 ? 2 : 8;
    if (available < 2 + bytes)
        return false;
    *frame = (struct frame){at[0], at[1] & 0x80, 2 + bytes, bytes ? 0 : at[1]};
    for (unsigned i = 0; i < bytes; i++)
        frame->length = frame->length << 8 | at[2 + i];
    return true;
}
#endif
