"""Property tests say nothing about time, and try the same examples in every run; CRIOLLO_TEST_EXPLORE=1 tries new ones.

Ctrl-C works however the tests were started, and modes are what they are in a daemon, whatever umask the shell has.
"""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("support")  # its asserts say what they saw, as those of the tests do

explores = bool(os.environ.get("CRIOLLO_TEST_EXPLORE"))
settings.register_profile("criollo", deadline=None, derandomize=not explores, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("criollo")

# A shell lets what it puts into the background ignore Ctrl-C, and nohup SIGHUP: kpod would, too. What has a handler is as
# by default in a program that is started.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

os.umask(0o022)

# `su` without a dash leaves these out; tests look at iptables and make filesystems.
places = os.environ.get("PATH", os.defpath).split(os.pathsep)
os.environ["PATH"] = os.pathsep.join([*places, *(each for each in ("/usr/sbin", "/sbin") if each not in places)])
