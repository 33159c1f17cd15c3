"""Serving: exported versions, the embedded model server, and clients for gRPC and REST."""
