"""Devices of vendors, described by CDI specs on this node. `registry.py` first."""
