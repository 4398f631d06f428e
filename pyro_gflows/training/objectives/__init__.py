"""Objectives that training minimizes: the negative log-likelihood of data, or the divergence from an energy."""
