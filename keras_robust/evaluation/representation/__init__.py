"""Diagnostics of latent spaces and loss surfaces."""
