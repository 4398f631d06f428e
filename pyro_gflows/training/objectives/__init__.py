"""What is minimized: the likelihood of data, or the divergence from an energy."""
