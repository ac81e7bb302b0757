"""The kernel's room: system calls without policy; the only place that speaks C."""
