"""The command `crio`: flags, verbs, exit codes."""
