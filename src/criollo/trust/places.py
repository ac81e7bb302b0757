"""Files and directories that images come from, and what a policy may demand there.

Only a `dir` has a place for signatures. Its images have no name, so they can meet only those identities that say by themselves
which name they want; archives and layouts meet no demand at all.

Source: containers/image, directory and signature/policy_reference_match.go.
"""

import os
from pathlib import Path
from typing import Final, NamedTuple

from criollo.trust.requirements import ACCEPT, Requirement

_SIGNED: Final = "dir"


class FilePlace(NamedTuple):
    """A file or directory that images come from: absolute and without links, as scopes of policies name it."""

    transport: str
    path: Path

    @classmethod
    def at(cls, transport: str, path: Path) -> "FilePlace":
        """The place that a path leads to; blocking."""
        return cls(transport, Path(os.path.realpath(path)))

    def unmet(self, requirement: Requirement) -> str:
        """Why no image of this place can meet a requirement; empty when one may."""
        if requirement.type == ACCEPT:
            return ""
        if self.transport != _SIGNED or not requirement.is_verifiable:
            return "which no file meets"
        if not requirement.identity.names_itself:
            return f"and they have no name for {requirement.identity.kind}; write exactReference or exactRepository"
        return ""
