"""The embedded model server: TensorFlow Serving's gRPC and REST interfaces in Python."""
