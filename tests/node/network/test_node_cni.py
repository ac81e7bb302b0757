"""network.cni with Debian's plugins, the kernel, and iptables."""

import asyncio
import json
import os
import secrets
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from support import leaks, netleaks
from support.waiting import run

from criollo.aio import threads
from criollo.errors import ToolFailed
from criollo.linux import mount, namespaces
from criollo.linux.namespaces import NamespaceKind
from criollo.model.ids import new_id
from criollo.model.pod import PortMapping, Protocol
from criollo.network.attachment import Attachment
from criollo.network.cni import Cni, CniOptions

pytestmark = pytest.mark.node

T = TypeVar("T")
PLUGINS = Path("/usr/lib/cni")


class Node:
    """A bridge network of the test's own, and pods of it."""

    def __init__(self, root: Path) -> None:
        self.name = "crt" + secrets.token_hex(4)
        self.subnet = f"10.198.{secrets.randbelow(254) + 1}"
        self.root, self.net_d, self.ipam = root, root / "net.d", root / "ipam"
        self.net_d.mkdir()
        self.pods: list[str] = []
        namespaces.prepare_directory(root)

    def configure(
        self, *chained: dict[str, object], version: str = "1.0.0", ipv6: bool = False, masquerade: bool = True
    ) -> None:
        ranges = [[{"subnet": f"{self.subnet}.0/24"}]]
        if ipv6:
            ranges.append([{"subnet": f"fd99:{secrets.token_hex(2)}::/64"}])
        bridge = {
            "type": "bridge",
            "bridge": self.name,
            "isGateway": True,
            "ipMasq": masquerade,
            "hairpinMode": True,
            "ipam": {"type": "host-local", "dataDir": str(self.ipam), "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]},
        }
        document = {"cniVersion": version, "name": self.name, "plugins": [bridge, *chained]}
        (self.net_d / "10.conflist").write_text(json.dumps(document))

    async def cni(self, **options: object) -> Cni:
        cni = Cni(self.net_d, [PLUGINS], self.root / "cache", options=CniOptions(**options))  # type: ignore[arg-type]
        await cni.load()
        return cni

    async def pod(self, **more: object) -> Attachment:
        """A pod with namespaces, not attached yet."""
        pod_id = new_id()
        self.pods.append(pod_id)
        paths = {
            kind: namespaces.directory_of(self.root, kind) / pod_id
            for kind in (NamespaceKind.NET, NamespaceKind.IPC, NamespaceKind.UTS)
        }
        await threads.fresh(namespaces.pin, tuple(paths), paths)
        fields = {"pod_id": pod_id, "netns": str(paths[NamespaceKind.NET]), "name": "web", "namespace": "d", "uid": "u", **more}
        return Attachment(**fields)  # type: ignore[arg-type]

    def drop(self, attachment: Attachment) -> None:
        for kind in NamespaceKind:
            namespaces.unpin(namespaces.directory_of(self.root, kind) / attachment.pod_id)

    @property
    def leases(self) -> list[str]:
        directory = self.ipam / self.name
        return sorted(name for name in os.listdir(directory) if name[0].isdigit()) if directory.is_dir() else []

    def leftovers(self) -> dict[str, list[str]]:
        """What is left of pods on the node, once all of them have been deleted."""
        return {
            "leases": self.leases,
            "veth": netleaks.ports_of(self.name),
            "rules": netleaks.rules_with(*self.pods, f"{self.subnet}."),
            "kept": os.listdir(self.root / "cache" / "results") if (self.root / "cache").exists() else [],
        }


NOTHING: dict[str, list[str]] = {"leases": [], "veth": [], "rules": [], "kept": []}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    descriptors = leaks.descriptors()
    made = Node(tmp_path)
    try:
        yield made
        assert made.leftovers() == NOTHING
        assert leaks.new_descriptors(descriptors) == []
        assert netleaks.mounts_below(tmp_path) == [str(tmp_path / "netns")]
    finally:
        for path in netleaks.mounts_below(tmp_path):
            mount.unmount(path, detach=True)
        netleaks.delete_link(made.name)
        netleaks.delete_rules(made.name)


async def inside(attachment: Attachment, function: Callable[[], T]) -> T:
    return await threads.fresh(namespaces.run_in, Path(attachment.netns), function)


def answers_ping(address: str) -> bool:
    """ICMP echo by hand: type 8, code 0, checksum, id, sequence."""
    head = struct.pack("!BBHHH", 8, 0, 0, 7, 1)
    total = sum(struct.unpack("!4H", head))
    packet = struct.pack("!BBHHH", 8, 0, ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF, 7, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.settimeout(2)
        for _ in range(10):
            raw.sendto(packet, (address, 0))
            try:
                return raw.recvfrom(1500)[0][20] == 0
            except TimeoutError:
                continue
    return False


def test_an_attached_pod_reaches_its_gateway(node: Node) -> None:
    async def work() -> None:
        node.configure()
        cni, pod = await node.cni(), await node.pod()
        attached = await cni.add(pod)
        assert len(attached.ips) == 1
        assert attached.ips[0].startswith(node.subnet)
        assert await inside(pod, lambda: answers_ping(f"{node.subnet}.1"))
        await cni.delete(pod)
        node.drop(pod)

    run(work())


def test_two_pods_reach_each_other(node: Node) -> None:
    async def work() -> None:
        node.configure()
        cni = await node.cni()
        first, second = await node.pod(), await node.pod()
        await cni.add(first)
        address = (await cni.add(second)).ips[0]
        assert await inside(first, lambda: answers_ping(address))
        for pod in (first, second):
            await cni.delete(pod)
            node.drop(pod)

    run(work())


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_each_protocol_version_attaches_checks_and_detaches(node: Node, version: str) -> None:
    async def work() -> None:
        node.configure({"type": "portmap", "capabilities": {"portMappings": True}}, version=version)
        cni, pod = await node.cni(), await node.pod()
        assert (await cni.add(pod)).ips
        await cni.check(pod)
        await cni.delete(pod)
        node.drop(pod)

    run(work())


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this kernel has no IPv6")
def test_both_families_are_answered_first_of_each(node: Node) -> None:
    async def work() -> None:
        node.configure(ipv6=True)
        cni, pod = await node.cni(), await node.pod()
        ips = (await cni.add(pod)).ips
        assert [":" in ip for ip in ips] == [False, True]
        await cni.delete(pod)
        node.drop(pod)

    run(work())


def test_a_host_port_reaches_the_pod_and_goes_with_it(node: Node) -> None:
    async def work() -> None:
        node.configure({"type": "portmap", "capabilities": {"portMappings": True}})
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        ports = (PortMapping(protocol=Protocol.TCP, container_port=8080, host_port=port),)
        cni, pod = await node.cni(), await node.pod(ports=ports)
        await cni.add(pod)
        with await inside(pod, lambda: socket.create_server(("0.0.0.0", 8080))):
            (await threads.files(socket.create_connection, (f"{node.subnet}.1", port), 10)).close()
        assert any(str(port) in rule for rule in netleaks.rules_with(pod.pod_id))
        await cni.delete(pod)
        assert not any(str(port) in rule for rule in netleaks.rules_with(pod.pod_id))
        node.drop(pod)

    run(work())


def test_a_chain_whose_second_plugin_fails_releases_the_address(node: Node) -> None:
    async def work() -> None:
        node.configure({"type": "tuning", "sysctl": {"net.ipv4.none_such": "1"}})
        cni, pod = await node.cni(), await node.pod()
        with pytest.raises(ToolFailed, match="none_such"):
            await cni.add(pod)
        node.drop(pod)

    run(work())


def test_delete_completes_when_the_namespace_is_gone(node: Node) -> None:
    async def work() -> None:
        node.configure(masquerade=False)  # Debian's plugin finds its rules by the addresses inside the namespace
        cni, pod = await node.cni(), await node.pod()
        await cni.add(pod)
        node.drop(pod)
        await cni.delete(pod)
        while netleaks.ports_of(node.name):  # the kernel takes the veth pair with the namespace, a little later
            await asyncio.sleep(0.01)

    run(work())


def test_delete_completes_when_the_namespace_is_a_plain_file(node: Node) -> None:
    async def work() -> None:
        node.configure(masquerade=False)  # Debian's plugin finds its rules by the addresses inside the namespace
        cni, pod = await node.cni(), await node.pod()
        await cni.add(pod)
        node.drop(pod)
        Path(pod.netns).touch()
        await cni.delete(pod)
        node.drop(pod)
        while netleaks.ports_of(node.name):
            await asyncio.sleep(0.01)

    run(work())


def test_delete_twice_and_after_a_restart(node: Node) -> None:
    async def work() -> None:
        node.configure()
        pod = await node.pod()
        await (await node.cni()).add(pod)
        cni = await node.cni()
        await cni.delete(pod)
        await cni.delete(pod)
        node.drop(pod)

    run(work())


def test_check_finds_a_missing_interface(node: Node) -> None:
    async def work() -> None:
        node.configure(masquerade=False)  # as above
        cni, pod = await node.cni(), await node.pod()
        await cni.add(pod)
        await inside(pod, lambda: netleaks.delete_link("eth0"))
        with pytest.raises(ToolFailed):
            await cni.check(pod)
        await cni.delete(pod)
        node.drop(pod)

    run(work())


def test_gc_collects_the_pods_of_a_dead_daemon(node: Node) -> None:
    async def work() -> None:
        node.configure()
        lost, live = await node.pod(), await node.pod()
        cni = await node.cni()
        for pod in (lost, live):
            await cni.add(pod)
        assert await (await node.cni()).gc({live.pod_id}) == ()
        assert len(node.leases) == 1
        assert await inside(live, lambda: answers_ping(f"{node.subnet}.1"))
        await cni.delete(live)
        for pod in (lost, live):
            node.drop(pod)

    run(work())


def test_many_pods_at_once_get_different_addresses(node: Node) -> None:
    async def work() -> None:
        node.configure()
        cni = await node.cni()
        pods = [await node.pod() for _ in range(8)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(cni.add(pod)) for pod in pods]
        assert len({task.result().ips for task in tasks}) == len(pods)
        async with asyncio.TaskGroup() as group:
            for pod in pods:
                group.create_task(cni.delete(pod))
        for pod in pods:
            node.drop(pod)

    run(work())


def test_a_killed_add_is_undone_by_delete(node: Node) -> None:
    async def work() -> None:
        node.configure(masquerade=False)  # killed between chain and rule, Debian's plugin cannot delete its chain
        cni, pod = await node.cni(), await node.pod()
        async with asyncio.TaskGroup() as group:
            adding = group.create_task(cni.add(pod))
            while not node.leases and not adding.done():
                await asyncio.sleep(0.001)
            adding.cancel()
        await (await node.cni()).delete(pod)
        node.drop(pod)

    run(work())


def test_skipping_portmap_changes_nothing_of_the_result(node: Node) -> None:
    async def work() -> None:
        node.configure({"type": "portmap", "capabilities": {"portMappings": True}})
        results = []
        for shortcuts in (True, False):
            cni, pod = await node.cni(shortcuts=shortcuts), await node.pod()
            result = json.loads((await cni.add(pod)).result)
            results.append((sorted(result), [interface["name"] for interface in result["interfaces"]][::2], len(result["ips"])))
            await cni.delete(pod)
            node.drop(pod)
        assert results[0] == results[1]

    run(work())
