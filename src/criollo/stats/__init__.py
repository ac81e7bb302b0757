"""Numbers of pods and containers."""
