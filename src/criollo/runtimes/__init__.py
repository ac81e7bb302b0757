"""Drive a runtime handler."""
