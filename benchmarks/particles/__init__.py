"""Densities of clusters of particles: finite equivariant flows beside continuous ones and a flow without the symmetry.

The targets are the double well of four particles in the plane (DW4) and the Lennard-Jones cluster of thirteen in space
(LJ13, energies of ordered pairs), in ``pyro_gflows.targets``. A design (``designs.py``) is a function that builds a
density, how it is trained, and CPU minutes of one thread for its training, which schedules of learning rates and
temperatures follow. "likelihood" is trained on 10,000 exact draws, new ones for every seed; "energy" on the energy
alone; the continuous flow of a graph network by flow matching on the same draws.

All figures of the table are over fresh exact draws (of another run of the sampler, 100,000 for DW4 and 20,000 for LJ13)
and over 100,000 own draws, untrimmed; over fewer where the table says so, as each draw of a continuous flow with its
log-density takes up to a second:

- gap: the mean of true log p - model log p over exact draws, with the constants of the target;
- test NLL, at least the entropy of the target;
- ESS: (sum w)^2 / (N sum w^2) with w = p / q over own draws;
- forward ESS: 1 / (E_p[w] E_p[1/w]) over exact draws, which also shows modes that a density misses;
- log Z: the log of the mean weight;
- evaluations a draw: of the velocity field by dopri5 at tolerance 1e-5 (relative and absolute), in float32, for 100
  draws with log-densities; a finite flow evaluates each network once;
- 100 draws, s: CPU seconds of 100 draws with their log-densities, one thread.

A figure that is better than that of the exact density, by more than five standard errors, is an error and ends the run.
Of an augmented flow the NLL and the gap are bounds by 32 importance weights for each draw, and ESS is that of the joint
density of positions and auxiliary vectors.

The table, in CPU minutes of training (drawing exact samples and measuring come on top: 3 and 2 to 10 a row for DW4, 15
and 10 to 120 a row for LJ13), and then the timings of 100 draws by the weights of these runs, and one of the densities
on several grids::

    python -m benchmarks.particles --target dw4 --seeds 5          # 32 minutes a seed
    python -m benchmarks.particles --target lj13                   # 95 minutes
    python -m benchmarks.particles.timing --only lj13
    python -m benchmarks.particles.grids

or some rows with other settings, a row that was interrupted after its training, and the table from runs that ended::

    python -m benchmarks.particles --target dw4 --by energy --minutes 2 --results /tmp/mine
    python -m benchmarks.particles --target lj13 --design "sequential placement" --resume
    python -m benchmarks.particles --table

Exact draws and trained weights are kept in ``runs/particles`` (another place with ``--folder``); every run that ends is
a line of ``results/particles.jsonl``, and is not run again. Needs ``pip install '.[bench]'``.
"""

from benchmarks.particles.benchmark import BENCHMARK

__all__ = ["BENCHMARK"]
