"""Code that may hang, burn a CPU or read hostile bytes: it runs in child processes that can be killed."""
