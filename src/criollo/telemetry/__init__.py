"""What operators see of us: log lines."""
