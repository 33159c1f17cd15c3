"""Run directories, and what is done with a trained run: evaluate, attack, export."""
