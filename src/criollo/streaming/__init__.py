"""Exec, attach and port-forward for clients: SPDY or WebSocket behind an HTTP upgrade."""
