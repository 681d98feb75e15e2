"""`python -m echo.server project.asgi:application`: Daphne's command line with this transport."""

import asyncio
import sys


def main() -> None:
    try:
        import uvloop
    except ImportError:  # the extra [speed] is not installed
        pass
    else:
        # before Daphne is imported, which makes the event loop
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    from echo.server.daphne import CommandLineInterface

    CommandLineInterface().run(sys.argv[1:])


if __name__ == "__main__":
    main()
