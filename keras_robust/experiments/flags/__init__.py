"""Command-line flags of the programs; none of these modules imports TensorFlow."""
