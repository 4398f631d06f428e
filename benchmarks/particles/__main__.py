"""``python -m benchmarks.particles``."""

from benchmarks.harness import main
from benchmarks.particles.benchmark import BENCHMARK

if __name__ == "__main__":
    main(BENCHMARK)
