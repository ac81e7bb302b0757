"""Which images may be used at all: policy.json and, later, signatures."""
