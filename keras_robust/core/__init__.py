"""Foundations of all rooms: types, validation, serialization, the classifier contract, files."""
