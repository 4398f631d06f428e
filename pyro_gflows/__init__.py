"""Normalizing flows for Pyro whose densities are exactly invariant under a symmetry group."""
