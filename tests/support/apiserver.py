"""The part of an API server and kubelet that kubectl's exec, attach, cp and port-forward need, before a real daemon.

    with run_api_server(daemon) as server:
        server.serve("web", pod_id, main=Served(container_id, tty=True, stdin=True))
        server.url                                  # kubectl --server URL exec web -- true

As a kubelet does, it asks the CRI for a streaming URL and hands the client's upgrade on to it: the head with another path,
then bytes, so that SPDY and WebSocket are between kubectl and the daemon.
"""

import contextlib
import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qs, urlsplit

import grpc
from support.cri import Cri, pb
from support.serving import Quiet, serving

NAMESPACE = "default"
_POD = re.compile(rf"/api/v1/namespaces/{NAMESPACE}/pods(?:/([^/]+)(?:/(exec|attach|portforward))?)?")
_CHUNK = 256 << 10
_HEAD_LIMIT_S = 60


class Node(Protocol):
    """Whatever has a CRI: support.daemon, or another daemon beside which ours is put."""

    @property
    def cri(self) -> Cri: ...


class Served(NamedTuple):
    """A container as the pod's specification shows it; kubectl attach looks at both flags."""

    container_id: str
    tty: bool = False
    stdin: bool = False


@dataclass
class ApiServer:
    """What is served. `upgrades` has the (verb, protocols offered, status line) of each upgrade that was handed on."""

    node: Node
    url: str = ""
    pods: dict[str, tuple[str, dict[str, Served]]] = field(default_factory=dict)
    upgrades: list[tuple[str, list[str], str]] = field(default_factory=list)

    def serve(self, name: str, pod_id: str, **containers: Served) -> None:
        self.pods[name] = (pod_id, containers)

    def document(self, path: str, query: Mapping[str, list[str]]) -> dict[str, Any] | None:
        """What a GET of the path gives; None: there is no such thing."""
        if path in _DISCOVERY:
            return _DISCOVERY[path]
        found = _POD.fullmatch(path)
        if found is None or found[2]:
            return None
        if found[1] is not None:
            return self._pod(found[1]) if found[1] in self.pods else None
        wanted = [field.removeprefix("metadata.name=") for field in query.get("fieldSelector", [])]
        names = [name for name in self.pods if not wanted or name in wanted]
        listed = {"metadata": {"resourceVersion": "1"}, "items": [self._pod(name) for name in names]}
        return {"kind": "PodList", "apiVersion": "v1", **listed}

    def _pod(self, name: str) -> dict[str, Any]:
        _, containers = self.pods[name]
        spec = [{"name": each, "image": "test", "tty": it.tty, "stdin": it.stdin} for each, it in containers.items()]
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        metadata = {"name": name, "namespace": NAMESPACE, "uid": f"uid-{name}", "resourceVersion": "1"}
        return {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {"containers": spec}, "status": status}

    def streaming_url(self, path: str, query: Mapping[str, list[str]]) -> str:
        """Where the daemon serves this subresource. Raises grpc.RpcError, LookupError."""
        found = _POD.fullmatch(path)
        if found is None or not found[2] or found[1] not in self.pods:
            raise LookupError(path)
        pod_id, containers = self.pods[found[1]]
        if found[2] == "portforward":
            ports = [int(port) for port in query.get("port", [])]
            request: Any = pb.PortForwardRequest(pod_sandbox_id=pod_id, port=ports)
            return str(self.node.cri.call("PortForward", request).url)
        container = containers[query.get("container", list(containers))[0]]
        flags = {name: query.get(name) in (["true"], ["1"]) for name in ("stdin", "stdout", "stderr", "tty")}
        if found[2] == "attach":
            return str(self.node.cri.call("Attach", pb.AttachRequest(container_id=container.container_id, **flags)).url)
        request = pb.ExecRequest(container_id=container.container_id, cmd=query.get("command", []), **flags)
        return str(self.node.cri.call("Exec", request).url)


@contextlib.contextmanager
def run_api_server(node: Node) -> Iterator[ApiServer]:
    """Serve on a free loopback port; all connections have ended afterwards."""
    server = ApiServer(node)

    class Handler(Quiet):
        protocol_version = "HTTP/1.1"
        rbufsize = 0  # what follows an upgrade's head belongs to the daemon

        def do_GET(self) -> None:
            split = urlsplit(self.path)
            query = parse_qs(split.query, keep_blank_values=True)
            if "upgrade" in self.headers.get("Connection", "").lower():
                self._hand_on(split.path, query)
            elif (found := server.document(split.path, query)) is not None:
                self._answer(200, found)
            else:
                self._refuse(404, "NotFound", f"there is no {split.path}")

        do_POST = do_GET

        def _hand_on(self, path: str, query: Mapping[str, list[str]]) -> None:
            self.close_connection = True
            try:
                url = server.streaming_url(path, query)
            except LookupError:
                self._refuse(404, "NotFound", f"there is no {path}")
                return
            except grpc.RpcError as error:
                self._refuse(500, "InternalError", error.details())
                return
            with contextlib.closing(connect(url)) as below:
                target = urlsplit(url)
                below.sendall(self._head(target.path + (f"?{target.query}" if target.query else ""), target.netloc))
                head, rest = read_head(below)
                names = ("X-Stream-Protocol-Version", "Sec-WebSocket-Protocol")
                offered = [value for name in names for value in self.headers.get_all(name, [])]
                server.upgrades.append((path.rpartition("/")[2], offered, head.partition(b"\r\n")[0].decode()))
                self.connection.sendall(head + rest)
                pass_on(self.connection, below)

        def _head(self, target: str, host: str) -> bytes:
            fields = [(name, host if name.lower() == "host" else value) for name, value in self.headers.items()]
            lines = [f"{self.command} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields), "", ""]
            return "\r\n".join(lines).encode()

        def _refuse(self, code: int, reason: str, message: str) -> None:
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
            self._answer(code, {**status, "reason": reason, "message": message})

        def _answer(self, code: int, document: Mapping[str, Any]) -> None:
            self.answer(code, json.dumps(document).encode(), {"Content-Type": "application/json"})

    with serving(Handler) as port:
        server.url = f"http://127.0.0.1:{port}"
        yield server


def connect(url: str) -> socket.socket:
    """A connection to a streaming URL's server; a certificate is not checked, as kubelet does not."""
    split = urlsplit(url)
    sock = socket.create_connection((split.hostname or "", split.port or 0), timeout=_HEAD_LIMIT_S)
    if split.scheme != "https":
        return sock
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(sock, server_hostname=split.hostname)


def read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    """A response's head with its empty line, and what came with it."""
    seen = b""
    while b"\r\n\r\n" not in seen:
        more = sock.recv(_CHUNK)
        if not more:
            raise ConnectionError(f"the server ended the connection after {seen!r}")
        seen += more
    head, end, rest = seen.partition(b"\r\n\r\n")
    return head + end, rest


def pass_on(above: socket.socket, below: socket.socket) -> None:
    """Bytes both ways, each half closed after its source's end; returns when both have ended."""
    for sock in (above, below):
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    upward = threading.Thread(target=_copy, args=(below, above))
    upward.start()
    _copy(above, below)
    upward.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    try:
        while count := source.recv_into(buffer):
            sink.sendall(view[:count])
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
    except OSError:  # one side is gone: so shall be the other
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


_VERBS = ("get", "list")
_SUBRESOURCES = {"pods/exec": "PodExecOptions", "pods/attach": "PodAttachOptions", "pods/portforward": "PodPortForwardOptions"}
_DISCOVERY: dict[str, dict[str, Any]] = {
    "/version": {"major": "1", "minor": "32", "gitVersion": "v1.32.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [
            {"name": "pods", "singularName": "pod", "shortNames": ["po"], "namespaced": True, "kind": "Pod", "verbs": _VERBS},
            *(
                {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["create", "get"]}
                for name, kind in _SUBRESOURCES.items()
            ),
        ],
    },
}
