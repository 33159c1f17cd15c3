"""Weights of PyTorch models: reading, names of layers, and loading."""
