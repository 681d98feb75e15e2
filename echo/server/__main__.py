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
        # Set the policy before importing Daphne, which creates the event loop.
        asyncio.set_event_loop_policy(EventLoopPolicy())
    from echo.server.daphne.server import CommandLineInterface

    CommandLineInterface().run(sys.argv[1:])
    timer = threading.Timer(THREADS_TIMEOUT, _exit)
    timer.daemon = True
    timer.start()


def _exit() -> None:
    """Exit even if threads are still busy.

    Python waits without limit for the threads of executors, so one slow database query would keep a
    stopped server alive. Remove this when Python can exit without joining the threads of an
    executor: https://github.com/python/cpython/issues/80961
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
