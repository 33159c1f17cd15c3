"""Attacks that look for the closest adversarial image; a ball only decides whether it counts."""
