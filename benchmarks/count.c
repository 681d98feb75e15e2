/* The load of a count: HTTP connections that are kept alive, a request in flight on each.
 *
 *   count --port P --path /bench/getCurrentConnections --expected N [--connections N]
 *         [--warmup SECONDS] [--seconds SECONDS]
 *
 * Of every answer the status and the number in its text are verified. Prints one JSON line.
 * Loopback only, bounded in time and connections.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "latencies.h"
#include "response.h"

#define MAX_CONNECTIONS 1000
#define MAX_ANSWER 4096

struct connection {
    int fd;
    uint64_t asked_at;
    size_t length;
    char answer[MAX_ANSWER + 1];
};

static struct connection connections[MAX_CONNECTIONS];
static char request[1024];
static size_t request_length;
static long port, wanted = 50, expected, done, errors;
static const char *path = "/";
static double warmup = 1, seconds = 3;
static int epoll;

static void fail(struct connection *c, const char *why)
{
    if (errors++ < 3)
        fprintf(stderr, "%s: %.*s\n", why, 200, c->answer);
    close(c->fd);
    c->fd = -1;
}

static void ask(struct connection *c)
{
    c->length = 0;
    c->asked_at = clock_now(CLOCK_MONOTONIC);
    if (send(c->fd, request, request_length, MSG_NOSIGNAL) != (ssize_t)request_length)
        fail(c, "send");
}

static void take(struct connection *c, const char *body)
{
    if (strncmp(c->answer, "HTTP/1.1 200", 12) || number_in(body) != expected) {
        fail(c, "not the count");
        return;
    }
    add_latency(clock_now(CLOCK_MONOTONIC) - c->asked_at);
    done++;
    ask(c);
}

static void receive(struct connection *c)
{
    ssize_t n = recv(c->fd, c->answer + c->length, MAX_ANSWER - c->length, 0);
    if (n <= 0) {
        fail(c, "closed, or too long an answer");
        return;
    }
    c->length += (size_t)n;
    c->answer[c->length] = 0;
    const char *body = body_of(c->answer, c->length);
    if (body)
        take(c, body);
}

static void run(double time)
{
    struct epoll_event events[256];
    uint64_t end = clock_now(CLOCK_MONOTONIC) + (uint64_t)(time * SECOND);
    while (clock_now(CLOCK_MONOTONIC) < end) {
        int n = epoll_wait(epoll, events, 256, 10);
        for (int i = 0; i < n; i++)
            receive(events[i].data.ptr);
    }
}

static void open_all(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    for (long i = 0; i < wanted; i++) {
        struct connection *c = &connections[i];
        struct epoll_event event = {EPOLLIN, {.ptr = c}};
        int one = 1;
        c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0) {
            perror("connect");
            exit(1);
        }
        epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
        ask(c);
    }
}

static void read_options(int argc, char **argv)
{
    static const struct option names[] = {
        {"port", 1, 0, 'p'}, {"path", 1, 0, 'a'}, {"connections", 1, 0, 'c'},
        {"expected", 1, 0, 'e'}, {"warmup", 1, 0, 'w'}, {"seconds", 1, 0, 's'}, {0, 0, 0, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (option) {
        case 'p': port = atol(optarg); break;
        case 'a': path = optarg; break;
        case 'c': wanted = atol(optarg); break;
        case 'e': expected = atol(optarg); break;
        case 'w': warmup = atof(optarg); break;
        case 's': seconds = atof(optarg); break;
        default: exit(2);
        }
    }
    if (port < 1 || port > 65535 || wanted < 1 || wanted > MAX_CONNECTIONS || warmup < 0
        || warmup > 60 || seconds <= 0 || seconds > 300) {
        fputs("count: an option is out of range\n", stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    request_length = (size_t)snprintf(request, sizeof request,
        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%ld\r\nAccept: */*\r\n\r\n", path, port);
    if (request_length >= sizeof request)
        return 2;
    open_all();
    run(warmup);
    forget_latencies();
    done = 0;
    uint64_t begin = clock_now(CLOCK_MONOTONIC), begin_cpu = clock_now(CLOCK_PROCESS_CPUTIME_ID);
    run(seconds);
    double wall = (double)(clock_now(CLOCK_MONOTONIC) - begin);
    double cpu = (double)(clock_now(CLOCK_PROCESS_CPUTIME_ID) - begin_cpu);
    printf("{\"mode\": \"count\", \"per_second\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, "
           "\"max_us\": %.1f, \"errors\": %ld, \"generator_busy\": %.2f}\n",
           (double)done * SECOND / wall, percentile_us(0.5), percentile_us(0.99),
           (double)latency_max / 1000, errors, cpu / wall);
    return 0;
}
