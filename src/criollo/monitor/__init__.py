"""Conmon: the process that outlives the daemon and watches one container."""
