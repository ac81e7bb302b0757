"""OCI hooks that administrators lay down for all containers. `directory.py` first."""
