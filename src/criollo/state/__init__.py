"""What exists and in which state: the two databases and their owners."""
