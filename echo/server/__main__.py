"""`python -m echo.server project.asgi:application`: Daphne's command line with this transport."""

import asyncio
import atexit
import os
import sys
import threading

THREADS_TIMEOUT = 0.5  # seconds for busy threads to end: Python would wait for them without limit


def main() -> None:
    try:
        from echo.server.loop import EventLoopPolicy
    except ImportError:  # the extra [speed] is not installed
        pass
    else:
        # before Daphne is imported, which makes the event loop
        asyncio.set_event_loop_policy(EventLoopPolicy())
    from echo.server.daphne.server import CommandLineInterface

    CommandLineInterface().run(sys.argv[1:])
    timer = threading.Timer(THREADS_TIMEOUT, _end)
    timer.daemon = True
    timer.start()


def _end() -> None:
    """End the process, as it would end without the threads that are still busy."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
