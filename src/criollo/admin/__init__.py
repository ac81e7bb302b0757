"""The HTTP face: what other tools ask of the daemon."""
