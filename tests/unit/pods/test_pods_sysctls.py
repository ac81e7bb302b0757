"""pods.sysctls: which sysctls a pod may set."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.linux.namespaces import NamespaceKind
from criollo.model.pod import IdMapping
from criollo.pods.sysctls import FIELD, MAX_SYSCTLS, PING_GROUPS, choose, fitted

BOTH = frozenset({NamespaceKind.NET, NamespaceKind.IPC, NamespaceKind.UTS})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net.ipv4.ip_local_port_range", "32768 60999"),
        ("net.ipv4.ip_unprivileged_port_start", "0"),
        ("net.ipv4.ping_group_range", "0 2147483647"),
        ("net.ipv4.tcp_congestion_control", "bbr"),
        ("net.ipv4.ip_local_reserved_ports", "8080,9000-9100"),
        ("net.ipv4.conf.eth0/100.rp_filter", "1"),
        ("net.core.somaxconn", "1024"),
        ("net.ipv6.conf.all.disable_ipv6", "1"),
        ("kernel.shmmax", "67108864"),
        ("kernel.shm_rmid_forced", "1"),
        ("kernel.msgmax", "65536"),
        ("kernel.sem", "250\t32000\t32\t128"),
        ("fs.mqueue.queues_max", "512"),
    ],
)
def test_namespaced_sysctls_are_allowed(name: str, value: str) -> None:
    assert choose({name: value}, {}, BOTH).chosen == {name: value}


@pytest.mark.parametrize(
    "name",
    ["", "net", "net.", "net..x", ".net.x", "kernel.core_pattern", "kernel/core_pattern", "kernel.hostname",
     "kernel.domainname",
     "kernel.shm", "kernel.semx", "kernel.sem.x", "kernel.sem_next_id", "xkernel.shmmax", "kernel.shmmax.x", "kernel.shm/../x",
     "vm.swappiness", "fs.file-max", "fs.mqueue", "fs.mqueue.", "fs.mqueue.a.b", "netx.a", "net/ipv4/ip_forward",
     "net.ipv4.../../kernel/x", "net.ipv4./a", "net.ipv4.a/", "net.a//b", "net.ipv4.x\n", "net.ipv4.x=1", "net.ipv4.x y",
     "net.ipv4.x+kernel.y", "net.ipv4.\u0661", "net." + "a." * 20 + "b", "net." + "a" * 65, "kernel.shmmax\0"],
)  # fmt: skip
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(Invalid) as caught:
        choose({name: "1"}, {}, BOTH)
    assert caught.value.field == FIELD


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "1\n",
        "1\n2",
        "1+kernel.core_pattern=|/x",
        "a=b",
        "a|b",
        "1\0",
        "$(x)",
        "1;2",
        "\t1",
        "1\u00a02",
        "\u0661",
        "1" * 257,
    ],
)
def test_other_values_are_refused(value: str) -> None:
    with pytest.raises(Invalid) as caught:
        choose({"net.core.somaxconn": value}, {}, BOTH)
    assert caught.value.field == f"{FIELD}[net.core.somaxconn]"


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("net.core.somaxconn", {NamespaceKind.IPC}),
        ("kernel.msgmax", {NamespaceKind.NET, NamespaceKind.UTS}),
        ("fs.mqueue.queues_max", set()),
        ("kernel.sem", set()),
        ("kernel.shmmax", {NamespaceKind.NET}),
    ],
)
def test_sysctls_of_the_hosts_namespaces_are_refused(name: str, own: set[NamespaceKind]) -> None:
    with pytest.raises(Invalid, match="uses the host's"):
        choose({name: "1"}, {}, own)


def test_defaults_for_the_hosts_namespaces_are_dropped_and_told() -> None:
    chosen = choose({}, {"net.core.somaxconn": "1", "kernel.msgmax": "2"}, {NamespaceKind.IPC})
    assert chosen.chosen == {"kernel.msgmax": "2"}
    assert len(chosen.dropped) == 1
    assert "net.core.somaxconn" in chosen.dropped[0]


def test_a_request_wins_over_a_default() -> None:
    assert choose({"kernel.msgmax": "1"}, {"kernel.msgmax": "2"}, BOTH).chosen == {"kernel.msgmax": "1"}


def test_spaces_around_a_value_go() -> None:
    assert choose({"kernel.msgmax": " 1 "}, {}, BOTH).chosen == {"kernel.msgmax": "1"}


def test_too_many_are_refused() -> None:
    with pytest.raises(Invalid):
        choose({f"net.a{number}.b": "1" for number in range(MAX_SYSCTLS + 1)}, {}, BOTH)


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_text_gets_out_of_the_allowed_trees(name: str, value: str) -> None:
    try:
        chosen = choose({name: value}, {}, BOTH).chosen
    except Invalid:
        return
    assert name.startswith(("net.", "kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."))
    assert ".." not in name
    assert all(text.isascii() and "\n" not in text and "+" not in text and "=" not in text for text in (name, *chosen.values()))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0 2147483647", "0 999"),
        ("0\t2147483647", "0 999"),
        ("0 10", "0 10"),
        ("1000 2000", "1000 999"),  # the kernel takes that for nobody
        ("1 0", "1 0"),
        ("x y", "x y"),
    ],
)
def test_who_may_ping_ends_with_the_pods_user_namespace(value: str, expected: str) -> None:
    gids = (IdMapping(host_id=100000, container_id=0, length=1000),)
    assert fitted({PING_GROUPS: value, "net.core.somaxconn": "7"}, gids) == {PING_GROUPS: expected, "net.core.somaxconn": "7"}


def test_other_sysctls_fit_any_user_namespace() -> None:
    assert fitted({"net.core.somaxconn": "2147483647"}, ()) == {"net.core.somaxconn": "2147483647"}
