/* What one core of this machine can do at all: the same job with epoll and nothing else.
 *
 * It echoes texts behind the prefix, sends those that start with "all:" to all, tells the count,
 * answers pings and Closes, refuses what RFC 6455 forbids (mask, reserved bits, lengths, UTF-8),
 * and reads nothing more from a client that does not read. It knows no fragments, no binary
 * messages, no pings of its own, no time limits: it is a limit, not a server. PORT says where.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sha1.h"

#define PREFIX "[Durable Object]: "
#define MAX_TEXT (1 << 20)
#define MAX_REQUESTS 8192       /* bytes of HTTP that are read at once */
#define MAX_CLIENTS 32768
#define TEXT 1
#define CLOSE 8
#define PING 9
#define PONG 10

struct client {
    int fd;
    unsigned place;             /* among the members; a WebSocket is one */
    bool upgraded, closing;
    unsigned char *rest, *queue; /* read and not whole; not taken by the client yet */
    size_t rest_length, queue_length;
};

static struct client *members[MAX_CLIENTS];
static unsigned member_count;
static int epoll;
/* For all clients: what is read at once, and the answers to it, which are at most 4 times as long:
 * an empty text of 6 bytes gets 20. */
static unsigned char in[2 * MAX_TEXT], out[8 * MAX_TEXT];
static size_t out_length;

static void watch(struct client *c, uint32_t events, int how)
{
    struct epoll_event event = {events, {.ptr = c}};
    epoll_ctl(epoll, how, c->fd, &event);
}

static void end(struct client *c)
{
    if (c->upgraded) {
        members[c->place] = members[--member_count];
        members[c->place]->place = c->place;
    }
    close(c->fd);
    free(c->rest);
    free(c->queue);
    free(c);
}

/* Send, and keep what the client does not take. */
static void send_to(struct client *c, const unsigned char *data, size_t length)
{
    ssize_t n = c->queue_length ? 0 : send(c->fd, data, length, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN)
        return; /* gone: epoll tells */
    n = n < 0 ? 0 : n;
    if ((size_t)n == length)
        return;
    if (!c->queue_length)
        watch(c, EPOLLOUT, EPOLL_CTL_MOD);
    c->queue = realloc(c->queue, c->queue_length + length - (size_t)n);
    memcpy(c->queue + c->queue_length, data + n, length - (size_t)n);
    c->queue_length += length - (size_t)n;
}

static void send_queue(struct client *c)
{
    ssize_t n = send(c->fd, c->queue, c->queue_length, MSG_NOSIGNAL);
    if (n <= 0)
        return;
    c->queue_length -= (size_t)n;
    memmove(c->queue, c->queue + n, c->queue_length);
    if (!c->queue_length)
        watch(c, EPOLLIN, EPOLL_CTL_MOD);
}

static void append(const void *data, size_t length)
{
    memcpy(out + out_length, data, length);
    out_length += length;
}

static void append_frame(int opcode, const char *prefix, const void *data, size_t length)
{
    size_t before = strlen(prefix), whole = before + length;
    unsigned bytes = whole < 126 ? 0 : whole < 65536 ? 2 : 8;
    out[out_length++] = (unsigned char)(0x80 | opcode);
    out[out_length++] = (unsigned char)(bytes == 0 ? whole : bytes == 2 ? 126 : 127);
    for (unsigned i = bytes; i-- > 0;)
        out[out_length++] = (unsigned char)(whole >> (8 * i));
    append(prefix, before);
    append(data, length);
}

static bool is_utf8(const unsigned char *s, size_t length)
{
    for (size_t i = 0, more; i < length; i += more + 1) {
        uint64_t eight;
        while (i + 8 <= length && (memcpy(&eight, s + i, 8), !(eight & 0x8080808080808080)))
            i += 8;
        if (i >= length)
            return true;
        unsigned char c = s[i];
        more = c < 0x80 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
        if ((c >= 0x80 && c < 0xc2) || c > 0xf4 || i + more >= length + (more == 0))
            return false;
        for (size_t j = 1; j <= more; j++)
            if (s[i + j] >> 6 != 2)
                return false;
        if ((c == 0xe0 && s[i + 1] < 0xa0) || (c == 0xed && s[i + 1] > 0x9f)
            || (c == 0xf0 && s[i + 1] < 0x90) || (c == 0xf4 && s[i + 1] > 0x8f))
            return false;
    }
    return true;
}

static void unmask(unsigned char *data, size_t length, const unsigned char *mask)
{
    uint32_t four;
    uint64_t eight, word;
    size_t i = 0;
    memcpy(&four, mask, 4);
    eight = (uint64_t)four << 32 | four;
    for (; i + 8 <= length; i += 8) {
        memcpy(&word, data + i, 8);
        word ^= eight;
        memcpy(data + i, &word, 8);
    }
    for (; i < length; i++)
        data[i] ^= mask[i % 4];
}

static void refuse(struct client *c, unsigned code)
{
    unsigned char data[2] = {(unsigned char)(code >> 8), (unsigned char)code};
    append_frame(CLOSE, "", data, 2);
    c->closing = true;
}

static void take_frame(struct client *c, int opcode, unsigned char *data, size_t length)
{
    if (opcode == TEXT && !is_utf8(data, length)) {
        refuse(c, 1007);
    } else if (opcode == TEXT && length >= 4 && !memcmp(data, "all:", 4)) {
        size_t before = out_length;
        append_frame(TEXT, "", data, length);
        for (unsigned i = 0; i < member_count; i++)
            send_to(members[i], out + before, out_length - before);
        out_length = before;
    } else if (opcode == TEXT) {
        append_frame(TEXT, PREFIX, data, length);
    } else if (opcode == PING) {
        append_frame(PONG, "", data, length);
    } else if (opcode == CLOSE) {
        append_frame(CLOSE, "", data, length);
        c->closing = true;
    } else if (opcode != PONG) {
        refuse(c, 1003);
    }
}

/* Take the first frame, and return its size; 0 if it is not whole. */
static size_t take_first(struct client *c, unsigned char *at, size_t have)
{
    if (have < 2)
        return 0;
    unsigned bytes = (at[1] & 127) < 126 ? 0 : (at[1] & 127) == 126 ? 2 : 8;
    size_t length = bytes ? 0 : at[1] & 127, head = 2 + bytes + 4;
    int opcode = at[0] & 15;
    if (have < head)
        return 0;
    for (unsigned i = 0; i < bytes; i++)
        length = length << 8 | at[2 + i];
    bool shortest = bytes == 0 || (bytes == 2 ? length >= 126 : length >= 65536);
    if (at[0] >> 4 != 8 || !(at[1] & 128) || !shortest || (opcode >= 8 && length > 125))
        refuse(c, 1002);
    else if (length > MAX_TEXT - 64)
        refuse(c, 1009);
    if (c->closing)
        return have;
    if (have < head + length)
        return 0;
    unmask(at + head, length, at + head - 4);
    take_frame(c, opcode, at + head, length);
    return head + length;
}

static void append_answer(const char *status, const char *body)
{
    out_length += (size_t)sprintf((char *)out + out_length,
        "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n%s",
        status, strlen(body), body);
}

/* Take a request, and return its size; 0 if it is not whole. */
static size_t take_request(struct client *c, unsigned char *at, size_t have)
{
    char *head = (char *)at, accept[29] = "", count[16];
    unsigned char *stop = memmem(at, have, "\r\n\r\n", 4);
    if (!stop)
        return 0;
    *stop = 0;
    char *key = strcasestr(head, "\r\nsec-websocket-key: ");
    char *line = strchr(head, '\r');
    bool is_websocket = key && key + 45 <= (char *)stop && strcasestr(head, "upgrade: websocket");
    if (line && memmem(head, (size_t)(line - head), "/getCurrentConnections ", 23)) {
        sprintf(count, "%u", member_count);
        append_answer("200 OK", count);
    } else if (!is_websocket || member_count == MAX_CLIENTS) {
        append_answer("426 Upgrade Required", "Expected Upgrade: websocket");
    } else {
        accept_of(key + 21, accept);
        out_length += (size_t)sprintf((char *)out + out_length,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Accept: %s\r\n\r\n", accept);
        c->upgraded = true;
        c->place = member_count;
        members[member_count++] = c;
    }
    return (size_t)(stop - at) + 4;
}

static void take_all(struct client *c, size_t length)
{
    size_t used = 0, n = 1;
    while (n && used < length && !c->closing) {
        n = (c->upgraded ? take_first : take_request)(c, in + used, length - used);
        used += n;
    }
    if (out_length)
        send_to(c, out, out_length);
    out_length = 0;
    c->rest_length = length - used;
    free(c->rest);
    c->rest = c->rest_length ? malloc(c->rest_length) : NULL;
    if (c->rest_length)
        memcpy(c->rest, in + used, c->rest_length);
}

static void read_from(struct client *c)
{
    if (c->rest_length)
        memcpy(in, c->rest, c->rest_length);
    size_t room = (c->upgraded ? sizeof in : MAX_REQUESTS) - c->rest_length;
    ssize_t n = recv(c->fd, in + c->rest_length, room, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n > 0)
        take_all(c, c->rest_length + (size_t)n);
    if (n <= 0 || c->closing)
        end(c);
}

static void take_client(int fd)
{
    int one = 1;
    struct client *c = calloc(1, sizeof *c);
    c->fd = fd;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    watch(c, EPOLLIN, EPOLL_CTL_ADD);
}

int main(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event events[512], listening = {EPOLLIN, {.ptr = NULL}};
    const char *port = getenv("PORT");
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), fd;
    address.sin_port = htons((uint16_t)atoi(port ? port : "0"));
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4096) < 0) {
        perror("limit");
        return 1;
    }
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &listening);
    for (;;) {
        int n = epoll_wait(epoll, events, 512, -1);
        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;
            if (!c)
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
                    take_client(fd);
            else if (events[i].events & (EPOLLHUP | EPOLLERR))
                end(c);
            else if (events[i].events & EPOLLOUT)
                send_queue(c);
            else
                read_from(c);
        }
    }
}
