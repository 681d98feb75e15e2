"""The clock of Redis is wrong for a while."""

import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.processes import FOUR
from tests.faults.redis_server import OwnRedis
from tests.faults.services import OWN_LAYER, require_no_wrong_count, steady
from tests.faults.site import Sampler, Site
from tests.faults.table import row
from tests.redis_server import executable

# Adds the seconds in the file CLOCK_OFFSET to the clock. libfaketime, preloaded, ends Redis: its
# initialization calls jemalloc, which reads the clock.
SOURCE = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long *offset;

__attribute__((constructor)) static void map_offset(void) {
  int file = open(getenv("CLOCK_OFFSET"), O_RDONLY);
  offset = mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
  close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int error = syscall(SYS_clock_gettime, clock, now);
  if (!error && clock == CLOCK_REALTIME && offset) now->tv_sec += *offset;
  return error;
}

int gettimeofday(struct timeval *now, void *zone) {
  struct timespec precise;
  int error = clock_gettime(CLOCK_REALTIME, &precise);
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return error;
}

time_t time(time_t *now) {
  struct timespec precise;
  clock_gettime(CLOCK_REALTIME, &precise);
  if (now) *now = precise.tv_sec;
  return precise.tv_sec;
}
"""


class Clock:
    """A redis-server, `executable`, whose clock is ahead by `set(seconds)`."""

    def __init__(self, folder: Path) -> None:
        self._offset = folder / "offset"
        self._offset.write_bytes(struct.pack("l", 0))
        source, library = folder / "clock.c", folder / "clock.so"
        source.write_text(SOURCE)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
        script = folder / "redis-server"
        script.write_text(
            "#!/bin/sh\n"
            f'CLOCK_OFFSET={self._offset} LD_PRELOAD={library} exec {executable()} "$@"\n'
        )
        script.chmod(0o700)
        self.executable = str(script)

    def set(self, seconds: int) -> None:
        with open(self._offset, "r+b") as file:
            file.write(struct.pack("l", seconds))


@contextmanager
def clock() -> Iterator[Clock]:
    if shutil.which("cc") is None:
        pytest.skip("the clock of Redis is replaced by a library in C, and there is no cc")
    with tempfile.TemporaryDirectory() as folder:
        yield Clock(Path(folder))


@row(
    "The clock of Redis is ahead by 60 s for 5 s; a process is killed, another ends in order",
    "exact or 503, exact again <= 5 s after each jump; sampled: 0 wrong counts",
)
def clock_ahead(seconds: int = 60) -> str:
    with (
        clock() as its_clock,
        OwnRedis(executable=its_clock.executable) as redis,
        Site(redis.url, FOUR, LAYER_URL=redis.url, **OWN_LAYER) as site,
        redis.client() as client,
    ):
        steady(site, 10)
        killed, ended, *others = site.servers
        with Sampler(site, "foo") as sampler:
            its_clock.set(seconds)
            assert client.time()[0] - time.time() > seconds - 2
            ahead = site.seconds_until_exact(5)
            time.sleep(1)
        samples = require_no_wrong_count(sampler, 40)
        site.kill(killed)
        for server in others:  # the first step at the right time is the exit of a process
            server.process.send_signal(signal.SIGSTOP)
        its_clock.set(0)
        try:
            ended.process.terminate()
            site.forget(ended)
        finally:
            for server in others:
                server.process.send_signal(signal.SIGCONT)
        right = site.seconds_until_exact(5)
        with Sampler(site, "foo") as sampler:
            time.sleep(2)
        samples = require_no_wrong_count(sampler, 20)
        return f"exact after {ahead:.2f} s when ahead, {right:.2f} s when right again; {samples}"
