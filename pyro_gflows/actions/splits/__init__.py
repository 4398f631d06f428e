"""Splits of an event into the part that a coupling layer reads and the part that it changes."""
