"""Particle systems: the exact constants of the targets, and the flows that are fitted to them."""
