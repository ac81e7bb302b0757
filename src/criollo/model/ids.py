"""Identities: which object is meant, and how names and ids are made.

A pod or container id is 64 lower-case hex digits; an image id is the hex of its config digest (no `sha256:`).
Names follow the kubelet's habit: `k8s_<container>_<pod>_<namespace>_<uid>_<attempt>`.
"""

import re
import secrets
from typing import NewType

PodId = NewType("PodId", str)
ContainerId = NewType("ContainerId", str)
ImageId = NewType("ImageId", str)

_ID = re.compile(r"[0-9a-f]{64}")
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")  # 64 bytes: sethostname(2)


def new_id() -> str:
    """64 random hex digits."""
    return secrets.token_hex(32)


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def is_hostname(text: str) -> bool:
    return _HOSTNAME.fullmatch(text) is not None


def short(text: str) -> str:
    """The first 12 digits: enough for a person."""
    return text[:12]


def pod_name(name: str, namespace: str, uid: str, attempt: int) -> str:
    return f"k8s_POD_{name}_{namespace}_{uid}_{attempt}"


def container_name(container: str, attempt: int, pod: str, namespace: str, uid: str) -> str:
    return f"k8s_{container}_{pod}_{namespace}_{uid}_{attempt}"
