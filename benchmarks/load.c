/* The load of the benchmarks: many WebSocket clients of one server, in one thread.
 *
 *   load echo        --connections N --in-flight K   texts echoed; every reply is verified
 *   load handshakes  --connections N                 opened, closed, and again, N at a time
 *   load fanout      --connections N                 one sends "all:...", all N must get it
 *   load idle        --connections N                 held until standard input closes
 *
 * With --socket-io the texts are messages of Socket.IO, in packets of Engine.IO 4.
 * Options of all: --port P [--host 127.0.0.1] [--path /bench/websocket] [--size BYTES]
 * [--warmup SECONDS] [--seconds SECONDS]. Prints one JSON line; idle first says "ready".
 * Loopback only, bounded in time and connections.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "frames.h"
#include "latencies.h"

#define PREFIX "[Durable Object]: "
#define BROADCAST "all:"
/* The key and its answer of RFC 6455 section 1.3. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

#define OPENING_AT_ONCE 50      /* Twisted's backlog; more would wait for a lost SYN */
#define OPENING_SECONDS 120     /* for all connections together */
#define DRAINING_SECONDS 5      /* for the replies that are under way at the end */
#define IDLE_SECONDS 600
#define READ_AHEAD 65536        /* bytes taken by one read */
#define NUMBER_DIGITS 12        /* of a text: 4 for its connection, 8 for its place */
#define SHOWN_ERRORS 3

enum state { GONE, OPENING, JOINING, OPEN, CLOSING };   /* only Socket.IO has to join */

struct connection {
    int fd;
    unsigned index;
    enum state state;
    uint32_t sent, received;    /* texts */
    uint64_t *sent_at;          /* of the request; of the texts in flight, a ring */
    unsigned char *in, *out;
    size_t in_length, out_length, out_done;
};

struct mode {
    const char *name;
    void (*opened)(struct connection *);
    void (*received)(struct connection *, const unsigned char *text, size_t length);
    void (*closed)(struct connection *);
    int (*run)(void);
};

static struct {
    const char *host, *path;
    long port, connections, in_flight, size;
    double warmup, seconds;
    bool socket_io;
} options = {"127.0.0.1", "/bench/websocket", 0, 50, 1, 32, 1, 3, false};

static const struct mode *mode;
static struct sockaddr_in address;
static struct connection *connections;
static char request[1024];
static char *text, *reply;      /* as sent; as it must come back */
static size_t text_length, reply_length, in_size, out_size;
static size_t tail;             /* bytes after the text, in both */
static int epoll;
static uint64_t now;            /* of the last read */
static long started, opening, open_now; /* connections */
static long under_way;          /* texts sent and not answered, or members still to be reached */
static long done, errors;
static bool draining, stdin_closed;

/* Connections -------------------------------------------------------------- */

static void drop(struct connection *c)
{
    if (c->state == GONE)
        return;
    if (c->state == OPENING || c->state == JOINING)
        opening--;
    else
        open_now--;
    c->state = GONE;
    close(c->fd);
}

static void fail(struct connection *c, const char *format, ...)
{
    va_list arguments;
    if (errors++ < SHOWN_ERRORS) {
        va_start(arguments, format);
        fprintf(stderr, "connection %u: ", c->index);
        vfprintf(stderr, format, arguments);
        fputc('\n', stderr);
        va_end(arguments);
    }
    drop(c);
}

static void flush(struct connection *c)
{
    while (c->state != GONE && c->out_done < c->out_length) {
        ssize_t n = send(c->fd, c->out + c->out_done, c->out_length - c->out_done, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN && errno != EINPROGRESS && errno != ENOTCONN)
                fail(c, "send: %s", strerror(errno));
            return;
        }
        c->out_done += (size_t)n;
    }
    c->out_done = c->out_length = 0;
}

static unsigned char *room(struct connection *c, size_t length)
{
    if (c->out_length + length > out_size) {
        memmove(c->out, c->out + c->out_done, c->out_length - c->out_done);
        c->out_length -= c->out_done;
        c->out_done = 0;
    }
    if (c->out_length + length > out_size) {
        fail(c, "the server takes nothing");
        return NULL;
    }
    c->out_length += length;
    return c->out + c->out_length - length;
}

static void append_frame(struct connection *c, enum opcode opcode, const void *data, size_t length)
{
    unsigned char *to = room(c, frame_size(length));
    if (to)
        put_frame(to, opcode, data, length);
}

static void start_connection(struct connection *c)
{
    int one = 1;
    size_t length = strlen(request);
    *c = (struct connection){.index = c->index, .sent_at = c->sent_at, .in = c->in, .out = c->out};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    c->state = OPENING;
    c->sent_at[0] = clock_now(CLOCK_MONOTONIC);
    opening++;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS) {
        fail(c, "connect: %s", strerror(errno));
        return;
    }
    struct epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {.ptr = c}};
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
    memcpy(room(c, length), request, length);
}

static void start_connections(void)
{
    while (started < options.connections && opening < OPENING_AT_ONCE)
        start_connection(&connections[started++]);
}

/* What comes in ------------------------------------------------------------ */

static void is_open(struct connection *c)
{
    c->state = OPEN;
    opening--;
    open_now++;
    mode->opened(c);
}

static size_t take_answer(struct connection *c)
{
    const unsigned char *end = memmem(c->in, c->in_length, "\r\n\r\n", 4);
    if (!end)
        return 0;
    size_t length = (size_t)(end - c->in) + 4;
    if (length < 12 || memcmp(c->in, "HTTP/1.1 101", 12) || !memmem(c->in, length, ACCEPT, 28)) {
        fail(c, "refused: %.*s", (int)(strcspn((char *)c->in, "\r")), c->in);
        return 0;
    }
    if (options.socket_io)
        c->state = JOINING;
    else
        is_open(c);
    return length;
}

/* Take a packet that is no message, and return whether it was one (Socket.IO's protocol, 5). */
static bool take_packet(struct connection *c, const unsigned char *data, size_t length)
{
    if (length == 1 && *data == '2')                        /* ping */
        append_frame(c, TEXT, "3", 1);
    else if (c->state == JOINING && length && *data == '0') /* Engine.IO is open */
        append_frame(c, TEXT, "40", 2);
    else if (c->state == JOINING && length > 2 && !memcmp(data, "40{", 3))
        is_open(c);
    else if (c->state == JOINING)
        fail(c, "unexpected packet %.*s", (int)(length < 60 ? length : 60), data);
    else
        return false;
    return true;
}

static void take_frame(struct connection *c, unsigned char first, unsigned char *data, size_t length)
{
    if (options.socket_io && first == (0x80 | TEXT) && take_packet(c, data, length))
        return;
    if (first == (0x80 | TEXT))
        mode->received(c, data, length);
    else if (first == (0x80 | PING))
        append_frame(c, PONG, data, length);
    else if (first == (0x80 | CLOSE))
        mode->closed(c);
    else
        fail(c, "unexpected frame 0x%02x", first);
}

/* Return how many of the bytes the first frame was, or 0 if it is not whole. */
static size_t take_first_frame(struct connection *c, unsigned char *at, size_t length)
{
    struct frame frame;
    if (!get_frame(&frame, at, length))
        return 0;
    if (frame.is_masked || frame.length > in_size - 10) {
        fail(c, "masked or too long a frame");
        return 0;
    }
    if (length < frame.head + frame.length)
        return 0;
    take_frame(c, frame.first, at + frame.head, frame.length);
    return frame.head + frame.length;
}

static void take_all(struct connection *c)
{
    size_t used = 0, n = 1;
    while (n && c->state != GONE && used < c->in_length) {
        if (c->state == OPENING)
            n = take_answer(c);
        else
            n = take_first_frame(c, c->in + used, c->in_length - used);
        used += n;
    }
    if (c->state == GONE || c->in_length < used)
        return;
    c->in_length -= used;
    memmove(c->in, c->in + used, c->in_length);
}

static void read_all(struct connection *c, bool to_its_end)
{
    size_t space;
    ssize_t n;
    int fd = c->fd;
    do {
        space = in_size - c->in_length;
        n = recv(fd, c->in + c->in_length, space, 0);
        if (n < 0 && errno == EAGAIN)
            return;
        now = clock_now(CLOCK_MONOTONIC);
        if (n <= 0) {
            mode->closed(c);
            return;
        }
        c->in_length += (size_t)n;
        take_all(c);
        /* A connection that was started anew has another socket, and its own event. */
        if (c->state == GONE || c->state == OPENING)
            return;
    } while (to_its_end || (size_t)n == space);
}

static void handle(struct epoll_event *event)
{
    struct connection *c = event->data.ptr;
    if (!c) {
        char ignored[256];
        stdin_closed = read(0, ignored, sizeof ignored) <= 0;
        return;
    }
    if (c->state != GONE && event->events & EPOLLOUT)
        flush(c);
    if (c->state != GONE && event->events & ~(uint32_t)EPOLLOUT)
        read_all(c, event->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR));
    if (c->state > OPENING)
        flush(c);
}

static bool never(void) { return false; }
static bool all_started(void) { return started == options.connections && opening == 0; }
static bool all_answered(void) { return under_way <= 0 || open_now == 0; }
static bool all_closed(void) { return opening + open_now == 0; }
static bool told_to_end(void) { return stdin_closed; }

static void run_until(bool (*over)(void), double seconds)
{
    struct epoll_event events[256];
    uint64_t end = clock_now(CLOCK_MONOTONIC) + (uint64_t)(seconds * SECOND);
    while (!over() && clock_now(CLOCK_MONOTONIC) < end) {
        int n = epoll_wait(epoll, events, 256, 10);
        for (int i = 0; i < n; i++)
            handle(&events[i]);
    }
}

static bool open_all(void)
{
    start_connections();
    run_until(all_started, OPENING_SECONDS);
    if (open_now == options.connections)
        return true;
    fprintf(stderr, "%ld of %ld connections opened\n", open_now, options.connections);
    return false;
}

/* Run warm-up and measurement, let what is under way end, and print the figures. */
static void measure(bool (*over)(void))
{
    run_until(never, options.warmup);
    forget_latencies();
    done = 0;
    uint64_t begin = clock_now(CLOCK_MONOTONIC), begin_cpu = clock_now(CLOCK_PROCESS_CPUTIME_ID);
    run_until(never, options.seconds);
    double wall = (double)(clock_now(CLOCK_MONOTONIC) - begin);
    double cpu = (double)(clock_now(CLOCK_PROCESS_CPUTIME_ID) - begin_cpu);
    long measured = done;
    double p50 = percentile_us(0.5), p99 = percentile_us(0.99), max = (double)latency_max / 1000;
    draining = true;
    run_until(over, DRAINING_SECONDS);
    if (!over())
        errors += under_way > 0 ? under_way : 1;
    printf("{\"mode\": \"%s\", \"per_second\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, "
           "\"max_us\": %.1f, \"errors\": %ld, \"generator_busy\": %.2f}\n",
           mode->name, (double)measured * SECOND / wall, p50, p99, max, errors, cpu / wall);
}

/* The modes ---------------------------------------------------------------- */

/* Write the number of a text into both the text and the reply that it must get. */
static void number_text(unsigned index, uint32_t place)
{
    size_t in_text = text_length - tail - (size_t)options.size;
    size_t in_reply = reply_length - tail - (size_t)options.size;
    size_t start = !strncmp(text + in_text, BROADCAST, 4) ? 4 : 0;
    size_t width = (size_t)options.size - start;
    uint64_t number = (uint64_t)index << 32 | place;
    if (width > NUMBER_DIGITS)
        width = NUMBER_DIGITS;
    for (size_t i = start + width; i-- > start; number >>= 4)
        reply[in_reply + i] = text[in_text + i] = "0123456789abcdef"[number & 15];
}

static void send_text(struct connection *c)
{
    c->sent_at[c->sent % options.in_flight] = now;
    number_text(c->index, c->sent++);
    under_way++;
    append_frame(c, TEXT, text, text_length);
}

static bool is_expected(const unsigned char *data, size_t length)
{
    return length == reply_length && !memcmp(data, reply, length);
}

static void stay_open(struct connection *c)
{
    (void)c;
    start_connections();
}

static void not_expected(struct connection *c, const unsigned char *data, size_t length)
{
    fail(c, "unexpected text %.*s", (int)(length < 60 ? length : 60), data);
}

static void lost(struct connection *c)
{
    fail(c, "closed by the server");
}

static void echo_received(struct connection *c, const unsigned char *data, size_t length)
{
    number_text(c->index, c->received);
    if (c->received == c->sent || !is_expected(data, length)) {
        not_expected(c, data, length);
        return;
    }
    add_latency(now - c->sent_at[c->received++ % options.in_flight]);
    done++;
    under_way--;
    if (!draining)
        send_text(c);
}

static int echo_run(void)
{
    if (!open_all())
        return 1;
    now = clock_now(CLOCK_MONOTONIC);
    for (long i = 0; i < options.connections; i++) {
        for (long k = 0; k < options.in_flight; k++)
            send_text(&connections[i]);
        flush(&connections[i]);
    }
    measure(all_answered);
    return 0;
}

static void handshake_opened(struct connection *c)
{
    append_frame(c, CLOSE, "\x03\xe8", 2); /* 1000 */
    c->state = CLOSING;
    if (started < options.connections)  /* not `start_connections`: those that open again count */
        start_connection(&connections[started++]);
}

static void handshake_closed(struct connection *c)
{
    if (c->state != CLOSING) {
        fail(c, "closed during the handshake");
        return;
    }
    add_latency(now - c->sent_at[0]);
    done++;
    drop(c);
    if (!draining)
        start_connection(c);
}

static int handshakes_run(void)
{
    start_connections();
    measure(all_closed);
    return 0;
}

static void broadcast(void)
{
    struct connection *sender = &connections[0];
    send_text(sender);
    under_way = options.connections;
    flush(sender);
}

static void fanout_received(struct connection *c, const unsigned char *data, size_t length)
{
    if (c->received != connections[0].sent - 1 || !is_expected(data, length)) {
        not_expected(c, data, length);
        return;
    }
    c->received++;
    done++;
    if (--under_way > 0)
        return;
    add_latency(now - connections[0].sent_at[0]);
    if (!draining)
        broadcast();
}

static int fanout_run(void)
{
    if (!open_all())
        return 1;
    now = clock_now(CLOCK_MONOTONIC);
    broadcast();
    measure(all_answered);
    return 0;
}

static int idle_run(void)
{
    struct epoll_event event = {EPOLLIN, {.ptr = NULL}};
    if (!open_all())
        return 1;
    puts("ready");
    fflush(stdout);
    stdin_closed = epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &event) < 0; /* a file never waits */
    run_until(told_to_end, IDLE_SECONDS);
    printf("{\"mode\": \"idle\", \"errors\": %ld}\n", errors);
    return 0;
}

static const struct mode modes[] = {
    {"echo", stay_open, echo_received, lost, echo_run},
    {"handshakes", handshake_opened, not_expected, handshake_closed, handshakes_run},
    {"fanout", stay_open, fanout_received, lost, fanout_run},
    {"idle", stay_open, not_expected, lost, idle_run},
};

/* Setting up --------------------------------------------------------------- */

static void stop_if(bool wrong, const char *message)
{
    if (!wrong)
        return;
    fprintf(stderr, "load: %s\n", message);
    exit(2);
}

static void read_options(int argc, char **argv)
{
    static const struct option names[] = {
        {"host", 1, 0, 'h'}, {"port", 1, 0, 'p'}, {"path", 1, 0, 'a'},
        {"connections", 1, 0, 'c'}, {"in-flight", 1, 0, 'k'}, {"size", 1, 0, 'b'},
        {"warmup", 1, 0, 'w'}, {"seconds", 1, 0, 's'},
        {"socket-io", 0, 0, 'i'}, {0, 0, 0, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (option) {
        case 'h': options.host = optarg; break;
        case 'p': options.port = atol(optarg); break;
        case 'a': options.path = optarg; break;
        case 'c': options.connections = atol(optarg); break;
        case 'k': options.in_flight = atol(optarg); break;
        case 'b': options.size = atol(optarg); break;
        case 'w': options.warmup = atof(optarg); break;
        case 'i': options.socket_io = true; break;
        case 's': options.seconds = atof(optarg); break;
        default: exit(2);
        }
    }
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (optind == argc - 1 && !strcmp(argv[optind], modes[i].name))
            mode = &modes[i];
    stop_if(!mode, "expected one of: echo, handshakes, fanout, idle");
}

static void check_options(void)
{
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    stop_if(inet_pton(AF_INET, options.host, &address.sin_addr) != 1
            || ntohl(address.sin_addr.s_addr) >> 24 != 127, "--host must be in 127.0.0.0/8");
    stop_if(options.port < 1 || options.port > 65535, "--port must be 1 to 65535");
    stop_if(options.connections < 1 || options.connections > 20000, "--connections: 1 to 20000");
    stop_if(options.in_flight < 1 || options.in_flight > 1024, "--in-flight: 1 to 1024");
    stop_if(options.size < 8 || options.size > 1 << 20, "--size: 8 to 1048576 bytes");
    stop_if(options.connections * options.in_flight * options.size > 1 << 30,
            "--connections x --in-flight x --size: at most 1 GiB");
    stop_if(options.warmup < 0 || options.warmup > 60, "--warmup: 0 to 60 seconds");
    stop_if(options.seconds <= 0 || options.seconds > 300, "--seconds: at most 300");
    stop_if(mode->run == fanout_run && options.in_flight > 1, "fanout has one text in flight");
}

static void raise_limits(void)
{
    rlim_t needed = (rlim_t)options.connections + 64;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < needed) {
        limit.rlim_cur = needed < limit.rlim_max ? needed : limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    stop_if(limit.rlim_cur < needed, "the hard limit of open files is too low");
    alarm(OPENING_SECONDS + 60 + 300 + IDLE_SECONDS); /* whatever happens, it ends */
}

static void prepare_text(void)
{
    const char *before = options.socket_io ? "42[\"message\",\"" : "";
    const char *after = options.socket_io ? "\"]" : "";
    const char *prefix = mode->run == fanout_run ? "" : PREFIX;
    int size = (int)options.size;
    char *body = malloc((size_t)size + 1);
    stop_if(!body, "not enough memory");
    for (int i = 0; i < size; i++)
        body[i] = (char)('a' + i % 26);
    if (mode->run == fanout_run)
        memcpy(body, BROADCAST, strlen(BROADCAST));
    tail = strlen(after);
    int sent = asprintf(&text, "%s%.*s%s", before, size, body, after);
    int back = asprintf(&reply, "%s%s%.*s%s", before, prefix, size, body, after);
    stop_if(sent < 0 || back < 0, "not enough memory");
    text_length = (size_t)sent;
    reply_length = (size_t)back;
    free(body);
}

static void prepare_connections(void)
{
    in_size = reply_length + (mode->run == idle_run ? 4096 : READ_AHEAD);
    out_size = sizeof request + (size_t)options.in_flight * (text_length + MAX_FRAME_HEAD);
    connections = calloc((size_t)options.connections, sizeof *connections);
    stop_if(!connections, "not enough memory");
    for (long i = 0; i < options.connections; i++) {
        struct connection *c = &connections[i];
        c->index = (unsigned)i;
        c->in = malloc(in_size);
        c->out = malloc(out_size);
        c->sent_at = malloc((size_t)options.in_flight * sizeof *c->sent_at);
        stop_if(!c->in || !c->out || !c->sent_at, "not enough memory");
    }
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    check_options();
    raise_limits();
    prepare_text();
    prepare_connections();
    int length = snprintf(request, sizeof request,
        "GET %s HTTP/1.1\r\nHost: %s:%ld\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 13\r\n\r\n",
        options.path, options.host, options.port);
    stop_if(length >= (int)sizeof request, "--path is too long");
    stop_if(!seed_random(), "no random");
    epoll = epoll_create1(EPOLL_CLOEXEC);
    int code = mode->run();
    for (long i = 0; i < options.connections; i++)
        drop(&connections[i]);
    return code;
}
