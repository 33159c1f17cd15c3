"""Training sessions: a recipe trained into a run directory, with checkpoints to resume from."""
