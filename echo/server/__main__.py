"""`python -m echo.server project.asgi:application`: Daphne's command line with this server."""

import asyncio
import atexit
import os
import sys
import threading

THREADS_TIMEOUT = 0.5  # seconds for busy threads to finish


def main() -> None:
    try:
        from echo.server.loop import EventLoopPolicy
    except ImportError:  # uvloop is not installed
        pass
    else:
        # Before Daphne is imported, which creates the event loop.
        asyncio.set_event_loop_policy(EventLoopPolicy())
    from echo.server.daphne.server import CommandLineInterface

    CommandLineInterface().run(sys.argv[1:])
    timer = threading.Timer(THREADS_TIMEOUT, _exit)
    timer.daemon = True
    timer.start()


def _exit() -> None:
    """Exit, although threads are still busy.

    Python waits for the threads of executors without limit, so that one slow database query would
    keep a stopped server alive. This can go when an executor's threads need not be joined at exit:
    https://github.com/python/cpython/issues/80961
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
