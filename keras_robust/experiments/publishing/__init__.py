"""What leaves a run: exports, published models, the demo of serving."""
