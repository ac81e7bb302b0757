"""The only wiring: settings become drivers, drivers become the domain; closed in reverse."""
