"""Start, stop, reload, recover and sweep the daemon."""
