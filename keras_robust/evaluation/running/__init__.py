"""Running attacks on a model: batches, budgets, resuming and warnings."""
