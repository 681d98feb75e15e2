"""What the views of `streamed` send. Its tests import this, since the site changes timeouts."""

PAUSE = 3.0  # seconds: longer than the site's timeouts
PIECES = [f"{number}\n" * 10_000 for number in range(30)]
LARGE = 20_000_000  # bytes: more than the kernel buffers
