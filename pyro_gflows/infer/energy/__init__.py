"""Fitting to a density that is known up to a constant."""
