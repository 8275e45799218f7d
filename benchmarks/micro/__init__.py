"""Parts of ours timed against the same part of a peer: `python -m benchmarks.micro`."""
