"""What every fit shares: settings, the loop, checkpoints, resuming and data."""
