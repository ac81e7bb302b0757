"""Tasks, threads, children and locks: the only place that starts any of them."""
