"""Criollo: a Kubernetes container runtime daemon (CRI)."""

__version__ = "0.1.0"
