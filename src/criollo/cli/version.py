"""What `crio version` says: our version, Python's and the libraries'."""

import platform
import sys
from importlib import metadata

import msgspec

from criollo import __version__


def facts(*, verbose: bool) -> dict[str, object]:
    """Name, version, Python, platform; with `verbose` the version of every library that is installed of ours."""
    known: dict[str, object] = {
        "name": "criollo",
        "version": __version__,
        "pythonVersion": platform.python_version(),
        "pythonImplementation": platform.python_implementation(),
        "platform": f"{sys.platform}/{platform.machine()}",
        "kernel": platform.release(),
    }
    return {**known, "libraries": libraries()} if verbose else known


def libraries() -> dict[str, str]:
    """The versions of the packages that criollo depends on, by name."""
    found = {}
    for requirement in metadata.requires("criollo") or ():
        name, _, marker = requirement.partition(";")
        if "extra ==" in marker:
            continue
        name = name.strip().partition(">")[0].partition("=")[0].partition("<")[0].strip()
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def as_text(*, verbose: bool) -> str:
    """One line per fact."""
    words = {
        "name": "Name",
        "version": "Version",
        "pythonVersion": "PythonVersion",
        "pythonImplementation": "Implementation",
        "platform": "Platform",
        "kernel": "Kernel",
    }
    known = facts(verbose=verbose)
    lines = [f"{label + ':':<16}{known[key]}" for key, label in words.items()]
    if verbose:
        lines.append("Libraries:")
        lines.extend(f"  {name:<14}{number}" for name, number in libraries().items())
    return "\n".join(lines)


def as_json(*, verbose: bool) -> str:
    """The facts as one JSON document; the libraries are always there."""
    return msgspec.json.format(msgspec.json.encode({**facts(verbose=verbose), "libraries": libraries()}), indent=2).decode()
