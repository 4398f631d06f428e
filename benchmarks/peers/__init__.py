"""Time against named peers: what a step, a score or a draw takes here, over what it takes in another library.

``contest.py`` is one comparison, ``clocks.py`` measures it, ``rows.py`` lists all of them, and each family has a file
of its own. The command is ``python -m benchmarks.peers``.
"""

from benchmarks.peers.benchmark import BENCHMARK

__all__ = ["BENCHMARK"]
