"""The home directory of this user, for those who read files below it: a service of systemd has no HOME."""

import os
import pwd
from collections.abc import Mapping


def with_home(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment, with HOME as the user database has it where it has none; other container tools do the same."""
    if environ.get("HOME"):
        return environ
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # a user id without an entry
        return environ
    return {**environ, "HOME": home} if home.startswith("/") else environ
