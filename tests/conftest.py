"""Property tests say nothing about time: a slow machine fails none of them. Ctrl-C works however the tests were started."""

import signal

from hypothesis import HealthCheck, settings

settings.register_profile("criollo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("criollo")

# A shell lets what it puts into the background ignore Ctrl-C: kpod would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
