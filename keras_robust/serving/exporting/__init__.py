"""Export of a classifier with its detector as a SavedModel that TensorFlow Serving loads."""
