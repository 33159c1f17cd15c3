"""Reproduction of published tables and figures: trainings, measurements, results beside theirs."""
