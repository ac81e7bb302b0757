"""The CRI face: gRPC on a unix socket, messages to values and back."""
