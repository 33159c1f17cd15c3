"""Clients of a model server, TensorFlow Serving or the embedded one, over gRPC and REST."""
