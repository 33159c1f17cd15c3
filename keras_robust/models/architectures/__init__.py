"""Architectures, each a file, and the blocks that they share."""
