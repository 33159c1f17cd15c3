"""Results of an evaluation: validated data, and their descriptions."""
