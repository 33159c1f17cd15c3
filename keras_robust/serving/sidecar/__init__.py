"""A program beside TensorFlow Serving that reads its answers, and exports detection metrics."""
