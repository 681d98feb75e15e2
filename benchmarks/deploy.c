/* The clients of a site that is deployed: they echo once a second, and reconnect when they are closed.
 *
 *   deploy --port P --clients N [--path /bench/websocket] [--count /bench/getCurrentConnections]
 *          [--base SECONDS] [--cap SECONDS]
 *
 * A client that has lost its connection waits for a random time from 0 to min(cap, base x 2^attempt),
 * the attempts since it was last open ("full jitter"). Commands are lines of standard input, each
 * gets one line of JSON:
 *
 *   start LABEL PORT   a process starts: its count is read at that port 20 times a second
 *   measure            a phase begins: its figures count from now
 *   stop LABEL         the same, and that process is going to be stopped
 *   gone LABEL         that process has ended
 *   status             {"open": 5000, "left": 0}: connections, and those of stopping processes
 *   end                the phase ends; its figures
 *   totals             the counts that were read since the start
 *
 * A response names its process in the field `Server`; without one it is that of "-". A count is wrong if it is lower than the
 * number of connections that were certainly open all the time from the request to the response, or
 * higher than the number of those that may have been open at any time in it:
 *
 *   certainly open   the client has read the 101, has read no Close, and nobody stops the process
 *   may be open      from the connect() to the end of the stream
 *
 * Loopback only, bounded in time and clients.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "frames.h"
#include "latencies.h"
#include "response.h"

#define PREFIX "[Durable Object]: "
/* The key and its answer of RFC 6455 section 1.3. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define NOBODY "-"              /* names itself in no field `Server` */
#define RESTART 1012            /* the Close code of a server that restarts */

#define OPENING_AT_ONCE 50      /* at first; clients that come back know nothing of each other */
#define HANDSHAKE_SECONDS 30
#define CLOSING_SECONDS 10      /* from the Close of the server to the end of the stream */
#define MAX_SECONDS 1800        /* of the whole run */
#define TICK (SECOND / 500)
#define SAMPLE_EVERY (SECOND / 20)
#define BUCKET (SECOND / 10)    /* of handshakes; the peak is that of ten of them */
#define BUCKETS_PER_SECOND 10
#define MAX_BUCKETS 6000
#define IN_FLIGHT 32            /* texts of a client; with more it sends none until one is back */
#define MAX_ECHOES 600          /* of a client in a phase */
#define MAX_PROCESSES 32
#define TEXT_LENGTH 32
#define IN_SIZE 2048
#define SHOWN 3                 /* of the errors, and of the wrong counts */

enum kind { CLIENT, SAMPLER, COMMANDS };    /* of what epoll reports */
enum state { AWAY, CONNECTING, OPENING, OPEN, CLOSING };

struct process {
    char label[32];
    bool is_stopping;
};

struct client {
    enum kind kind;
    int fd;
    enum state state;
    unsigned index, attempts;       /* handshakes that failed since it was open */
    struct process *process;
    bool is_certain, is_left;       /* certainly open; open to a process that is stopping */
    uint64_t closed_at;             /* 0 at first */
    uint32_t sent, received;        /* texts */
    uint64_t sent_at[IN_FLIGHT];
    bool has_stayed;                /* since the phase began */
    unsigned echoes;                /* in the phase */
    uint32_t *echo_us;
    size_t in_length;
    unsigned char in[IN_SIZE + 1];
};

struct sampler {
    enum kind kind;
    int fd;
    char label[32];
    long port;
    bool is_connected, is_asking;
    uint64_t due;
    long certain, certain_lost, possible, started;  /* at the request */
    size_t length;
    char response[1024];
};

static struct {
    const char *path, *count;
    long port, clients;
    double base, cap;
} options = {"/bench/websocket", "/bench/getCurrentConnections", 0, 5000, 1, 30};

static struct {
    uint64_t began, began_cpu, back_at;     /* when all were back for the last time */
    long opened, refused, dropped, late, status_502, status_503, other_status;
    long closed_restart, closed_other, ended_without_close, unanswered;
    long at_once[MAX_BUCKETS], errors;
    uint64_t *away;                         /* how long each was */
    size_t away_count, away_size;
} phase;

static struct {
    long samples, unknown, unanswered, too_low, too_high, most_wrong;
} totals;

static struct process processes[MAX_PROCESSES];
static struct sampler samplers[MAX_PROCESSES];
static struct client *clients;
static uint64_t *due;               /* of each client: its next text, handshake or time limit */
static enum kind commands = COMMANDS;
static char request[1024], count_request[1024];
static int epoll;
static uint64_t now;
static bool has_ended;
static long first_started, opening, open_now, left;
static long certain, certain_lost, possible, started;

static void stop_if(bool wrong, const char *message)
{
    if (!wrong)
        return;
    fprintf(stderr, "deploy: %s\n", message);
    exit(2);
}

static void note_error(const struct client *c, const char *format, ...)
{
    va_list arguments;
    if (phase.errors++ >= SHOWN)
        return;
    va_start(arguments, format);
    fprintf(stderr, "client %u: ", c->index);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

static struct process *find_process(const char *label, size_t length)
{
    for (int i = 0; i < MAX_PROCESSES; i++) {
        struct process *p = &processes[i];
        if (!*p->label && length < sizeof p->label)
            memcpy(p->label, label, length);
        if (strlen(p->label) == length && !memcmp(p->label, label, length))
            return p;
    }
    stop_if(true, "too many processes, or too long a label");
    return NULL;
}

static int connect_to(long port, void *owner)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct epoll_event event = {EPOLLIN | EPOLLOUT, {.ptr = owner}};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    stop_if(fd < 0, "no socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    /* If it fails, so does the first send(). */
    (void)!connect(fd, (struct sockaddr *)&address, sizeof address);
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    return fd;
}

/* Send a request on a new connection, and wait for no more than what comes in. */
static bool send_first(int fd, void *owner, const char *text)
{
    struct epoll_event event = {EPOLLIN, {.ptr = owner}};
    epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event);
    return send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text);
}

/* Clients ------------------------------------------------------------------ */

static double random_part(void)
{
    return random_32() / 4294967296.0;
}

static uint64_t after(double seconds)
{
    return now + (uint64_t)(seconds * SECOND);
}

static void start_connection(struct client *c)
{
    c->state = CONNECTING;
    c->sent = c->received = 0;
    c->in_length = 0;
    due[c->index] = after(HANDSHAKE_SECONDS);
    started++;
    possible++;
    opening++;
    c->fd = connect_to(options.port, c);
}

static void start_first_connections(void)
{
    while (first_started < options.clients && opening < OPENING_AT_ONCE)
        start_connection(&clients[first_started++]);
}

static void lose_certainty(struct client *c)
{
    if (!c->is_certain)
        return;
    c->is_certain = false;
    certain--;
    certain_lost++;
}

/* The connection is gone: try again after a while. */
static void go_away(struct client *c)
{
    double most = options.base * (double)(1UL << (c->attempts < 20 ? c->attempts : 20));
    lose_certainty(c);
    if (c->state == OPEN || c->state == CLOSING) {
        open_now--;
        left -= c->is_left;
        phase.unanswered += c->sent - c->received;
    } else {
        opening--;
        c->attempts++;
    }
    c->state = AWAY;
    c->is_left = c->has_stayed = false;
    possible--;
    close(c->fd);
    due[c->index] = after(random_part() * (most < options.cap ? most : options.cap));
    start_first_connections();
}

static void check_all_back(void)
{
    if (open_now == options.clients && left == 0)
        phase.back_at = now;
}

static void note_away(uint64_t time)
{
    if (phase.away_count == phase.away_size) {
        phase.away_size = phase.away_size ? 2 * phase.away_size : 1024;
        phase.away = realloc(phase.away, phase.away_size * sizeof *phase.away);
        stop_if(!phase.away, "not enough memory");
    }
    phase.away[phase.away_count++] = time;
}

static void opened(struct client *c, struct process *process)
{
    uint64_t bucket = (now - phase.began) / BUCKET;
    c->state = OPEN;
    c->attempts = 0;
    c->process = process;
    c->is_left = process->is_stopping;
    c->is_certain = !process->is_stopping;
    certain += c->is_certain;
    left += c->is_left;
    opening--;
    open_now++;
    phase.opened++;
    if (bucket < MAX_BUCKETS)
        phase.at_once[bucket]++;
    if (c->closed_at)
        note_away(now - c->closed_at);
    due[c->index] = after(random_part());
    check_all_back();
    start_first_connections();
}

static void rejected(struct client *c)
{
    long status = c->in_length > 12 ? atol((char *)c->in + 9) : 0;
    if (status == 502)
        phase.status_502++;
    else if (status == 503)
        phase.status_503++;
    else if (phase.other_status++ < SHOWN)
        fprintf(stderr, "client %u: %.*s\n", c->index, (int)strcspn((char *)c->in, "\r"), c->in);
    go_away(c);
}

/* Return how many bytes the response to the handshake had, 0 if it is not whole. */
static size_t take_response(struct client *c)
{
    const char *head = (char *)c->in, *end, *label;
    c->in[c->in_length] = 0;
    end = strstr(head, "\r\n\r\n");
    if (!end)
        return 0;
    if (strncmp(head, "HTTP/1.1 101", 12) || !strstr(head, ACCEPT)) {
        rejected(c);
        return 0;
    }
    label = strcasestr(head, "\r\nserver: ");
    label = label && label < end ? label + 10 : NOBODY;
    opened(c, find_process(label, strcspn(label, "\r")));
    return (size_t)(end - head) + 4;
}

static void make_text(char *text, const struct client *c, uint32_t place)
{
    snprintf(text, TEXT_LENGTH + 1, "%08x-%08x-abcdefghijklmn", c->index, place);
}

static void send_frame(struct client *c, enum opcode opcode, const void *data, size_t length)
{
    unsigned char frame[MAX_FRAME_HEAD + 125];
    ssize_t size = (ssize_t)frame_size(length);
    put_frame(frame, opcode, data, length);
    /* So little is under way that the socket takes it, unless its end is known. */
    if (send(c->fd, frame, (size_t)size, MSG_NOSIGNAL) != size && errno == EAGAIN)
        note_error(c, "the server takes nothing");
}

static void send_text(struct client *c)
{
    char text[TEXT_LENGTH + 1];
    due[c->index] += SECOND;
    if (c->sent - c->received == IN_FLIGHT)
        return;
    make_text(text, c, c->sent);
    c->sent_at[c->sent++ % IN_FLIGHT] = now;
    send_frame(c, TEXT, text, TEXT_LENGTH);
}

static void take_text(struct client *c, const unsigned char *data, size_t length)
{
    char reply[sizeof PREFIX + TEXT_LENGTH] = PREFIX;
    make_text(reply + sizeof PREFIX - 1, c, c->received);
    if (c->received == c->sent || length != sizeof reply - 1 || memcmp(data, reply, length)) {
        note_error(c, "unexpected text %.*s", (int)(length < 60 ? length : 60), data);
        return;
    }
    uint64_t took = now - c->sent_at[c->received++ % IN_FLIGHT];
    if (c->echoes < MAX_ECHOES)
        c->echo_us[c->echoes++] = (uint32_t)(took / 1000);
}

static void take_close(struct client *c, const unsigned char *data, size_t length)
{
    unsigned code = length < 2 ? 1005 : (unsigned)data[0] << 8 | data[1];
    if (code == RESTART)
        phase.closed_restart++;
    else
        phase.closed_other++;
    if (!c->is_left)
        note_error(c, "closed with %u by %s, which nobody stops", code, c->process->label);
    lose_certainty(c);
    c->state = CLOSING;
    c->closed_at = now;
    due[c->index] = after(CLOSING_SECONDS);
    send_frame(c, CLOSE, data, length < 2 ? 0 : 2);
}

static size_t take_frame(struct client *c, const unsigned char *at, size_t length)
{
    struct frame frame;
    if (!get_frame(&frame, at, length))
        return 0;
    stop_if(frame.is_masked || frame.length > 125, "an unexpected frame");
    if (length < frame.head + frame.length)
        return 0;
    if (frame.first == (0x80 | TEXT))
        take_text(c, at + frame.head, frame.length);
    else if (frame.first == (0x80 | PING))
        send_frame(c, PONG, at + frame.head, frame.length);
    else if (frame.first == (0x80 | CLOSE))
        take_close(c, at + frame.head, frame.length);
    else
        note_error(c, "unexpected frame 0x%02x", frame.first);
    return frame.head + frame.length;
}

static void stream_ended(struct client *c, int error)
{
    if (c->state == CONNECTING && error == ECONNREFUSED) {
        phase.refused++;
    } else if (c->state == CONNECTING || c->state == OPENING) {
        phase.dropped++;
    } else if (c->state == OPEN) {
        phase.ended_without_close++;
        c->closed_at = now;
        if (!c->is_left)
            note_error(c, "ended by %s, which nobody stops", c->process->label);
    }
    go_away(c);
}

static void read_client(struct client *c)
{
    ssize_t n = recv(c->fd, c->in + c->in_length, IN_SIZE - c->in_length, 0);
    size_t used = 0, taken = 1;
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        stream_ended(c, n < 0 ? errno : 0);
        return;
    }
    c->in_length += (size_t)n;
    while (taken && c->state != AWAY && used < c->in_length) {
        if (c->state == OPENING)
            taken = take_response(c);
        else if (c->state == OPEN)
            taken = take_frame(c, c->in + used, c->in_length - used);
        else
            taken = c->in_length - used;    /* after a Close nothing counts */
        used += taken;
    }
    if (c->state == AWAY)
        return;
    c->in_length -= used;
    memmove(c->in, c->in + used, c->in_length);
}

static void handle_client(struct client *c, uint32_t happened)
{
    int error = 0;
    socklen_t length = sizeof error;
    if (c->state == CONNECTING && happened & (EPOLLERR | EPOLLHUP)) {
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        stream_ended(c, error);
        return;
    }
    if (c->state == CONNECTING && happened & EPOLLOUT) {
        c->state = OPENING;
        if (!send_first(c->fd, c, request))
            stream_ended(c, errno);
        return;
    }
    if (c->state != AWAY && happened & ~(uint32_t)EPOLLOUT)
        read_client(c);
}

static void time_is_up(struct client *c)
{
    if (c->state == OPEN) {
        send_text(c);
    } else if (c->state == AWAY) {
        start_connection(c);
    } else {
        phase.late++;
        possible++;                 /* nobody knows when the server notices: for good */
        go_away(c);
    }
}

/* Counts ------------------------------------------------------------------- */

static void judge(struct sampler *s, long count)
{
    long lowest = s->certain - (certain_lost - s->certain_lost);
    long highest = s->possible + (started - s->started);
    long wrong = count < lowest ? lowest - count : count > highest ? count - highest : 0;
    totals.samples++;
    totals.too_low += count < lowest;
    totals.too_high += count > highest;
    if (wrong > totals.most_wrong)
        totals.most_wrong = wrong;
    if (wrong && totals.too_low + totals.too_high <= SHOWN)
        fprintf(stderr, "%s: %ld connections, not %ld to %ld\n", s->label, count, lowest, highest);
}

static void forget_sampler(struct sampler *s)
{
    totals.unanswered += s->is_asking;
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
    s->is_connected = s->is_asking = false;
}

static void ask(struct sampler *s)
{
    s->is_asking = s->is_connected = true;
    s->length = 0;
    s->certain = certain;
    s->certain_lost = certain_lost;
    s->possible = possible;
    s->started = started;
    if (!send_first(s->fd, s, count_request))
        forget_sampler(s);
}

static void sample(struct sampler *s)
{
    s->due = now + SAMPLE_EVERY;
    if (s->fd < 0)
        s->fd = connect_to(s->port, s);     /* it asks when it is connected */
    else if (s->is_connected && !s->is_asking)
        ask(s);
}

static void handle_sampler(struct sampler *s, uint32_t happened)
{
    if (s->fd < 0)
        return;
    if (!s->is_connected && !(happened & (EPOLLERR | EPOLLHUP))) {
        ask(s);
        return;
    }
    ssize_t n = recv(s->fd, s->response + s->length, sizeof s->response - 1 - s->length, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        forget_sampler(s);
        return;
    }
    s->length += (size_t)n;
    s->response[s->length] = 0;
    const char *body = body_of(s->response, s->length);
    if (!body)
        return;
    s->is_asking = false;
    if (!strncmp(s->response, "HTTP/1.1 503", 12))
        totals.unknown++;
    else if (strncmp(s->response, "HTTP/1.1 200", 12))
        totals.unanswered++;
    else
        judge(s, number_in(body));
}

/* Commands ----------------------------------------------------------------- */

static void begin_phase(void)
{
    uint64_t *away = phase.away;
    size_t size = phase.away_size;
    memset(&phase, 0, sizeof phase);
    phase.away = away;
    phase.away_size = size;
    phase.began = now;
    phase.began_cpu = clock_now(CLOCK_PROCESS_CPUTIME_ID);
    for (long i = 0; i < options.clients; i++) {
        clients[i].echoes = 0;
        clients[i].has_stayed = clients[i].is_certain;
    }
}

static void stop_process(const char *label)
{
    struct process *process = find_process(label, strlen(label));
    process->is_stopping = true;
    for (long i = 0; i < options.clients; i++) {
        struct client *c = &clients[i];
        if (c->state != OPEN || c->process != process || c->is_left)
            continue;
        lose_certainty(c);
        c->is_left = true;
        left++;
    }
    begin_phase();
}

static void start_process(const char *label, long port)
{
    find_process(label, strlen(label))->is_stopping = false;
    for (int i = 0; i < MAX_PROCESSES; i++) {
        struct sampler *s = &samplers[i];
        if (s->port)
            continue;
        *s = (struct sampler){.kind = SAMPLER, .fd = -1, .port = port, .due = now};
        snprintf(s->label, sizeof s->label, "%s", label);
        return;
    }
    stop_if(true, "too many processes");
}

static void process_gone(const char *label)
{
    for (int i = 0; i < MAX_PROCESSES; i++) {
        struct sampler *s = &samplers[i];
        if (!s->port || strcmp(s->label, label))
            continue;
        forget_sampler(s);
        s->port = 0;
    }
}

static long peak_per_second(void)
{
    long most = 0, sum = 0;
    for (int i = 0; i < MAX_BUCKETS; i++) {
        sum += phase.at_once[i];
        if (i >= BUCKETS_PER_SECOND)
            sum -= phase.at_once[i - BUCKETS_PER_SECOND];
        if (sum > most)
            most = sum;
    }
    return most;
}

static void print_echoes(void)
{
    long stayed = 0;
    forget_latencies();
    for (long i = 0; i < options.clients; i++) {
        stayed += clients[i].has_stayed;
        for (unsigned k = 0; clients[i].has_stayed && k < clients[i].echoes; k++)
            add_latency(clients[i].echo_us[k] * 1000ULL);
    }
    printf("\"stayed\": %ld, \"echoes\": %lu, \"echo_p50_ms\": %.3f, \"echo_p99_ms\": %.3f, "
           "\"echo_max_ms\": %.3f, ", stayed, (unsigned long)latency_count, percentile_us(0.5) / 1e3,
           percentile_us(0.99) / 1e3, (double)latency_max / 1e6);
}

static void print_away(void)
{
    forget_latencies();
    for (size_t i = 0; i < phase.away_count; i++)
        add_latency(phase.away[i]);
    printf("\"away_p50_s\": %.3f, \"away_p99_s\": %.3f, \"away_max_s\": %.3f, ",
           percentile_us(0.5) / 1e6, percentile_us(0.99) / 1e6, (double)latency_max / SECOND);
}

static void end_phase(void)
{
    bool are_back = open_now == options.clients && left == 0;
    uint64_t cpu = clock_now(CLOCK_PROCESS_CPUTIME_ID) - phase.began_cpu;
    printf("{\"all_back\": %s, \"back_s\": %.3f, \"opened\": %ld, \"peak_per_second\": %ld, ",
           are_back ? "true" : "false",
           phase.back_at ? (double)(phase.back_at - phase.began) / SECOND : 0, phase.opened,
           peak_per_second());
    print_echoes();
    print_away();
    printf("\"refused\": %ld, \"dropped\": %ld, \"late\": %ld, \"status_502\": %ld, "
           "\"status_503\": %ld, \"other_status\": %ld, \"closed_1012\": %ld, "
           "\"closed_otherwise\": %ld, \"without_close\": %ld, \"unanswered\": %ld, "
           "\"errors\": %ld, \"generator_busy\": %.3f}\n",
           phase.refused, phase.dropped, phase.late, phase.status_502, phase.status_503,
           phase.other_status, phase.closed_restart, phase.closed_other, phase.ended_without_close,
           phase.unanswered, phase.errors, (double)cpu / (double)(now - phase.began + 1));
}

static void obey(char *line)
{
    char *word = strtok(line, " "), *label = strtok(NULL, " "), *port = strtok(NULL, " ");
    if (!strcmp(word, "start") && label && port)
        start_process(label, atol(port));
    else if (!strcmp(word, "stop") && label)
        stop_process(label);
    else if (!strcmp(word, "gone") && label)
        process_gone(label);
    else if (!strcmp(word, "measure"))
        begin_phase();
    else if (strcmp(word, "status") && strcmp(word, "end") && strcmp(word, "totals"))
        stop_if(true, "unknown command");
    if (!strcmp(word, "end"))
        end_phase();
    else if (!strcmp(word, "totals"))
        printf("{\"samples\": %ld, \"unknown\": %ld, \"unanswered\": %ld, \"too_low\": %ld, "
               "\"too_high\": %ld, \"most_wrong\": %ld}\n", totals.samples, totals.unknown,
               totals.unanswered, totals.too_low, totals.too_high, totals.most_wrong);
    else
        printf("{\"open\": %ld, \"left\": %ld}\n", open_now, left);
    fflush(stdout);
}

static void read_commands(void)
{
    static char line[256];
    static size_t length;
    ssize_t n = read(0, line + length, sizeof line - 1 - length);
    char *end;
    has_ended = n <= 0;
    if (has_ended)
        return;
    length += (size_t)n;
    line[length] = 0;
    while ((end = strchr(line, '\n'))) {
        *end = 0;
        if (*line)
            obey(line);
        length -= (size_t)(end + 1 - line);
        memmove(line, end + 1, length + 1);
    }
}

/* The loop ----------------------------------------------------------------- */

static void handle(const struct epoll_event *event)
{
    enum kind *kind = event->data.ptr;
    now = clock_now(CLOCK_MONOTONIC);
    if (*kind == CLIENT)
        handle_client(event->data.ptr, event->events);
    else if (*kind == SAMPLER)
        handle_sampler(event->data.ptr, event->events);
    else
        read_commands();
}

static void tick(void)
{
    for (long i = 0; i < options.clients; i++)
        if (due[i] <= now)
            time_is_up(&clients[i]);
    for (int i = 0; i < MAX_PROCESSES; i++)
        if (samplers[i].port && samplers[i].due <= now)
            sample(&samplers[i]);
}

static void run(void)
{
    struct epoll_event events[256];
    uint64_t next_tick = 0;
    now = clock_now(CLOCK_MONOTONIC);
    start_first_connections();
    while (!has_ended) {
        int n = epoll_wait(epoll, events, 256, 2);
        for (int i = 0; i < n; i++)
            handle(&events[i]);
        now = clock_now(CLOCK_MONOTONIC);
        if (now < next_tick)
            continue;
        tick();
        next_tick = now + TICK;
    }
}

static void read_options(int argc, char **argv)
{
    static const struct option names[] = {
        {"port", 1, 0, 'p'}, {"path", 1, 0, 'a'}, {"count", 1, 0, 'c'}, {"clients", 1, 0, 'n'},
        {"base", 1, 0, 'b'}, {"cap", 1, 0, 'm'}, {0, 0, 0, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (option) {
        case 'p': options.port = atol(optarg); break;
        case 'a': options.path = optarg; break;
        case 'c': options.count = optarg; break;
        case 'n': options.clients = atol(optarg); break;
        case 'b': options.base = atof(optarg); break;
        case 'm': options.cap = atof(optarg); break;
        default: exit(2);
        }
    }
    stop_if(options.port < 1 || options.port > 65535, "--port must be 1 to 65535");
    stop_if(options.clients < 1 || options.clients > 20000, "--clients: 1 to 20000");
    stop_if(options.base < 0 || options.cap < 0 || options.cap > 300, "--base, --cap: 0 to 300");
}

static void prepare(void)
{
    rlim_t needed = (rlim_t)options.clients + MAX_PROCESSES + 16;
    struct epoll_event event = {EPOLLIN, {.ptr = &commands}};
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    stop_if(limit.rlim_cur < needed, "the hard limit of open files is too low");
    stop_if(!seed_random(), "no random");
    alarm(MAX_SECONDS);             /* whatever happens, it ends */
    epoll = epoll_create1(EPOLL_CLOEXEC);
    stop_if(epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &event) < 0, "standard input must be a pipe");
    clients = calloc((size_t)options.clients, sizeof *clients);
    due = malloc((size_t)options.clients * sizeof *due);
    stop_if(!clients || !due, "not enough memory");
    for (long i = 0; i < options.clients; i++) {
        clients[i].index = (unsigned)i;
        clients[i].echo_us = malloc(MAX_ECHOES * sizeof *clients[i].echo_us);
        due[i] = UINT64_MAX;        /* until its first connection */
        stop_if(!clients[i].echo_us, "not enough memory");
    }
}

static void make_request(char *to, size_t size, const char *path, const char *fields)
{
    int length = snprintf(to, size, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%ld\r\n%s\r\n", path,
                          options.port, fields);
    stop_if(length >= (int)size, "a path is too long");
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    prepare();
    make_request(request, sizeof request, options.path,
                 "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " KEY
                 "\r\nSec-WebSocket-Version: 13\r\n");
    make_request(count_request, sizeof count_request, options.count, "Accept: */*\r\n");
    run();
    return 0;
}
