"""What autosell-rmq costs, beside every peer: ``python -m benchmarks`` (make bench, make bench-full)."""
