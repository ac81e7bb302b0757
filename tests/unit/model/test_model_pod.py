"""Ids of a user namespace on the host."""

import pytest

from criollo.model.pod import (
    IdMapping,
    NamespaceMode,
    Namespaces,
    Pod,
    PodConfig,
    PodId,
    PodSecurity,
    PodState,
    UserNamespace,
    host_id,
)

ROOT = IdMapping(host_id=100000, container_id=0, length=1000)
MORE = IdMapping(host_id=500, container_id=2000, length=10)


@pytest.mark.parametrize(
    ("inside", "outside"), [(0, 100000), (999, 100999), (1000, 100000), (2000, 500), (2009, 509), (2010, 100000)]
)
def test_an_id_that_is_not_mapped_is_roots(inside: int, outside: int) -> None:
    assert host_id((MORE, ROOT), inside) == outside


def test_without_mappings_root_is_root() -> None:
    assert host_id((), 0) == 0


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (None, None),
        (UserNamespace(mode=NamespaceMode.NODE), None),
        (UserNamespace(mode=NamespaceMode.POD, uids=(ROOT,), gids=(MORE, ROOT)), (100000, 100000)),
    ],
)
def test_a_pods_own_user_namespace_and_its_root(user: UserNamespace | None, expected: tuple[int, int] | None) -> None:
    config = PodConfig(name="p", uid="u", namespace="n", security=PodSecurity(namespaces=Namespaces(user=user)))
    pod = Pod(id=PodId("a"), name="p", config=config, handler="", state=PodState.READY, created_ns=0)
    assert (pod.user_namespace and pod.user_namespace.root) == expected
