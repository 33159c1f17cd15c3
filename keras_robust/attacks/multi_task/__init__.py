"""Attacks with one perturbation for many tasks: tasks, solvers, transformations."""
