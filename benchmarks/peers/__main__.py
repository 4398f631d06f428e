"""``python -m benchmarks.peers``."""

from benchmarks.harness import main
from benchmarks.peers.benchmark import BENCHMARK

if __name__ == "__main__":
    main(BENCHMARK)
