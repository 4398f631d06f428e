"""Which part of an event a coupling layer changes, and which part it reads."""
