"""The life of a pod sandbox."""
