"""pods.namespaces: which namespaces a pod has, and its hostname."""

import socket

import pytest

from criollo.errors import Invalid
from criollo.linux.namespaces import NamespaceKind
from criollo.model.ids import PodId
from criollo.model.pod import IdMapping, NamespaceMode, Namespaces, PodConfig, PodSecurity, UserNamespace
from criollo.pods.namespaces import hostname, plan, wanted

POD = PodId("ab" * 32)
ON_HOST = NamespaceMode.NODE
OWN = NamespaceMode.POD


def config(*, hostname: str = "", sysctls: dict[str, str] | None = None, **modes: object) -> PodConfig:
    namespaces = Namespaces(**modes)  # type: ignore[arg-type]
    security = PodSecurity(namespaces=namespaces)
    return PodConfig(name="p", uid="u", namespace="n", hostname=hostname, sysctls=sysctls or {}, security=security)


@pytest.mark.parametrize(
    ("modes", "kinds"),
    [
        ({}, {NamespaceKind.NET, NamespaceKind.UTS, NamespaceKind.IPC}),
        ({"network": ON_HOST}, {NamespaceKind.IPC}),
        ({"ipc": ON_HOST}, {NamespaceKind.NET, NamespaceKind.UTS}),
        ({"network": ON_HOST, "ipc": ON_HOST}, set()),
        ({"pid": ON_HOST}, {NamespaceKind.NET, NamespaceKind.UTS, NamespaceKind.IPC}),
        ({"pid": NamespaceMode.CONTAINER}, {NamespaceKind.NET, NamespaceKind.UTS, NamespaceKind.IPC}),
        ({"user": UserNamespace(mode=ON_HOST)}, {NamespaceKind.NET, NamespaceKind.UTS, NamespaceKind.IPC}),
        ({"user": UserNamespace(mode=OWN)}, {NamespaceKind.NET, NamespaceKind.UTS, NamespaceKind.IPC, NamespaceKind.USER}),
    ],
)
def test_modes_decide_the_kinds(modes: dict[str, object], kinds: set[NamespaceKind]) -> None:
    assert wanted(config(**modes)) == kinds


@pytest.mark.parametrize(
    "modes",
    [
        {"network": NamespaceMode.CONTAINER},
        {"network": NamespaceMode.TARGET},
        {"ipc": NamespaceMode.CONTAINER},
        {"user": UserNamespace(mode=NamespaceMode.TARGET)},
        {"user": UserNamespace(mode=NamespaceMode.CONTAINER)},
    ],
)
def test_modes_that_a_pod_cannot_have_are_refused(modes: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        plan(config(**modes), defaults={})


def test_plan_refuses_a_sysctl_of_the_host() -> None:
    with pytest.raises(Invalid):
        plan(config(network=ON_HOST, sysctls={"net.core.somaxconn": "1"}), defaults={})


def test_plan_drops_a_default_that_has_no_place() -> None:
    assert plan(config(network=ON_HOST), defaults={"net.core.somaxconn": "1"}).sysctls == {}


def test_plan_keeps_a_default_that_has_a_place() -> None:
    assert plan(config(), defaults={"net.core.somaxconn": "1"}).sysctls == {"net.core.somaxconn": "1"}


def test_plan_fits_sysctls_to_the_user_namespace() -> None:
    ids = (IdMapping(host_id=100000, container_id=0, length=1000),)
    own = config(user=UserNamespace(mode=OWN, uids=ids, gids=ids))
    everybody = {"net.ipv4.ping_group_range": "0 2147483647"}
    assert plan(own, defaults=everybody).sysctls == {"net.ipv4.ping_group_range": "0 999"}
    assert plan(config(), defaults=everybody).sysctls == everybody


def test_hostname_is_as_asked() -> None:
    assert hostname(config(hostname="web-0"), POD) == "web-0"


def test_hostname_defaults_to_the_ids_first_digits() -> None:
    assert hostname(config(), POD) == POD[:12]


def test_host_network_has_the_nodes_hostname() -> None:
    assert hostname(config(network=ON_HOST), POD) == socket.gethostname()


@pytest.mark.parametrize("name", ["a" * 65, "a\nb", "a b", "-a", "a-", "a/b", "ä", "a\0"])
def test_other_hostnames_are_refused(name: str) -> None:
    with pytest.raises(Invalid):
        hostname(config(hostname=name), POD)
