"""The cost of permessage-deflate: `python -m benchmarks.deflate`."""
