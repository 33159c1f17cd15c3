"""Runs: recipes, training sessions, run directories, evaluations, and the flags of the programs."""
