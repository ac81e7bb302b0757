"""The main job on an embedded default: an image from a registry, a pod with two containers, and a clean node afterwards.

Everything is real and private: a daemon on a socket of its own with state in a temporary directory, a registry on
loopback, an image built here from busybox, a bridge network. Nothing outside this machine is needed.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

BIN = Path(sys.executable).parent
BRIDGE = "criollo-demo0"
SUBNET = "10.222.0.0/24"
LIMIT_S = 30

_bold = "\033[1m{}\033[0m" if sys.stdout.isatty() else "{}"


def main() -> int:
    if os.geteuid() != 0:
        print("demo: run this as root: pods need namespaces, mounts and a network", file=sys.stderr)
        return 1
    before = traces()
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(private_place())
        say(f"Everything of this demo lives in {place}; its run state is on a tmpfs, as /run is on a node.")
        registry = stack.enter_context(run_registry(place))
        say(f"A registry serves on {registry}. Building an image from busybox and pushing it there.")
        image = f"{registry}/demo/busybox:1"
        push(registry, "demo/busybox", "1")
        write_configuration(place, registry)
        stack.enter_context(run_daemon(place))
        use(place, image)
    say("The daemon, the registry and the bridge are gone. What is left on the node that was not there before:")
    left = {kind: sorted(now - before[kind]) for kind, now in traces().items() if now - before[kind]}
    print(json.dumps(left, indent=2) if left else "  nothing")
    return 1 if left else 0


def use(place: Path, image: str) -> None:
    """What a person does at a node."""
    say(f"Pulling {image}.")
    kpod(place, "pull", image)
    kpod(place, "images")
    say("Starting a pod with two containers: a web server, and a client that asks it over the pod's own loopback.")
    manifest = place / "pod.json"
    manifest.write_text(json.dumps(pod_manifest(image), indent=1))
    kpod(place, "play", str(manifest))
    kpod(place, "pods")
    kpod(place, "ps")
    say("Status of the web server, as the daemon tells it (the first lines).")
    print("\n".join(kpod(place, "inspect", "web", quiet=True).splitlines()[:12]))
    say("Logs of the client, once it has its answer.")
    wait_for(lambda: "hello from the pod" in kpod(place, "logs", "client", quiet=True))
    kpod(place, "logs", "--tail", "3", "client")
    say("A command inside the web server: its address on the pod's network.")
    kpod(place, "exec", "web", "--", "ip", "-4", "addr", "show", "eth0")
    say("Killing the daemon with SIGKILL, and starting another one: the containers do not notice.")
    asked = kpod(place, "exec", "web", "--", "cat", "/proc/1/stat", quiet=True)
    restart_daemon(place)
    same = kpod(place, "exec", "web", "--", "cat", "/proc/1/stat", quiet=True).split()[21] == asked.split()[21]
    print(f"  the web server is {'the same process as before' if same else 'NOT the same process'}")
    say("What the containers use.")
    kpod(place, "stats", "--no-stream")
    say("Removing the pod and the image.")
    kpod(place, "play", "--down", str(manifest))
    kpod(place, "rmi", image)
    kpod(place, "pods")


def pod_manifest(image: str) -> dict[str, object]:
    serve = "mkdir -p /www; echo hello from the pod > /www/index.html; exec httpd -f -p 8080 -h /www"
    ask = "while :; do wget -qO- http://127.0.0.1:8080/; sleep 1; done"
    limits = {"limits": {"memory": "64Mi", "cpu": "200m"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "demo", "namespace": "default", "labels": {"app": "demo"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {"name": "web", "image": image, "command": ["sh", "-c", serve], "resources": limits},
                {"name": "client", "image": image, "command": ["sh", "-c", ask], "resources": limits},
            ],
        },
    }


def say(text: str) -> None:
    print("\n" + _bold.format(f"== {text}"), flush=True)


def wait_for(condition) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("demo: what was waited for did not come true")
        time.sleep(0.1)


# The daemon and its place


@contextlib.contextmanager
def private_place() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="criollo-demo-"))
    for name in ("run", "root", "logs", "net.d", "registry"):
        (place / name).mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700,size=64m", "criollo-demo", place / "run"], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-R", place / "run"], check=False)
        subprocess.run(["ip", "link", "delete", BRIDGE], check=False, capture_output=True)
        shutil.rmtree(place, ignore_errors=True)


def write_configuration(place: Path, registry: str) -> None:
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "ipMasq": True,
        "ipam": {"type": "host-local", "dataDir": str(place / "ipam"), "ranges": [[{"subnet": SUBNET}]]},
    }
    plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]
    network = {"cniVersion": "1.0.0", "name": "demo", "plugins": plugins}
    (place / "net.d/10-demo.conflist").write_text(json.dumps(network, indent=1))
    (place / "registries.conf").write_text(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
    (place / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    run = place / "run"
    (place / "crio.conf").write_text(
        f"""[crio]
root = "{place}/root"
runroot = "{run}"
log_dir = "{place}/logs"
[crio.api]
listen = "{run}/crio.sock"
[crio.runtime]
log_level = "warn"
namespaces_dir = "{run}"
container_exits_dir = "{run}/exits"
container_attach_socket_dir = "{run}/attach"
[crio.runtime.runtimes.crun]
runtime_root = "{run}/crun"
[crio.image]
signature_policy = "{place}/policy.json"
[crio.network]
network_dir = "{place}/net.d"
"""
    )


@contextlib.contextmanager
def run_daemon(place: Path) -> Iterator[None]:
    say("Starting the daemon: crio -c crio.conf -d ''.")
    start_daemon(place)
    print(f"  it serves on {place}/run/crio.sock")
    try:
        yield
    finally:
        say("Stopping the daemon.")
        stop_daemon(place, signal.SIGTERM)


def start_daemon(place: Path) -> None:
    conf = str(place / "registries.conf")
    environment = {**os.environ, "CONTAINERS_REGISTRIES_CONF": conf, "CONTAINERS_REGISTRIES_CONF_DIR": f"{conf}.d"}
    with open(place / "daemon.log", "ab") as log:
        command = [BIN / "crio", "-c", place / "crio.conf", "-d", ""]
        daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
    _daemons[place] = daemon
    deadline = time.monotonic() + LIMIT_S
    while not answers(place / "run/crio.sock"):
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("demo: the daemon did not start:\n" + (place / "daemon.log").read_text())
        time.sleep(0.05)


_daemons: dict[Path, "subprocess.Popen[bytes]"] = {}


def stop_daemon(place: Path, number: int) -> None:
    daemon = _daemons.pop(place)
    daemon.send_signal(number)
    daemon.wait(LIMIT_S)


def restart_daemon(place: Path) -> None:
    stop_daemon(place, signal.SIGKILL)
    start_daemon(place)


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def kpod(place: Path, *words: str, quiet: bool = False) -> str:
    """Run kpod as a person would, and show it unless `quiet`."""
    if not quiet:
        print(f"$ kpod {' '.join(words)}", flush=True)
    command = [BIN / "kpod", "-c", place / "crio.conf", "-d", "", *words]
    ended = subprocess.run(command, stdout=subprocess.PIPE if quiet else None, text=True, check=False)
    if ended.returncode != 0:
        raise SystemExit(f"demo: kpod {words[0]} ended with status {ended.returncode}; see {place}/daemon.log")
    return ended.stdout or ""


# The registry and the image


@contextlib.contextmanager
def run_registry(place: Path) -> Iterator[str]:
    """Debian's docker-registry on a free loopback port; gives host:port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    configuration = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(place / "registry")}},
        "http": {"addr": host, "secret": "demo"},
    }
    path = place / "registry.json"
    path.write_text(json.dumps(configuration))  # JSON is YAML
    with open(place / "registry.log", "wb") as log:
        server = subprocess.Popen(["docker-registry", "serve", path], stdout=log, stderr=log)
    try:
        wait_for(lambda: server.poll() is None and responds(f"http://{host}/v2/"))
        yield host
    finally:
        server.terminate()
        server.wait(LIMIT_S)


def responds(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


def push(registry: str, repository: str, tag: str) -> None:
    """Build a one-layer image from /bin/busybox and push it by the distribution protocol."""
    tar = busybox_layer()
    layer = push_blob(registry, repository, tar)
    command = {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]}
    rootfs = {"type": "layers", "diff_ids": [layer]}
    config = json.dumps({"architecture": machine(), "os": "linux", "config": command, "rootfs": rootfs}).encode()
    prefix = "application/vnd.oci.image."
    manifest = {
        "schemaVersion": 2,
        "mediaType": prefix + "manifest.v1+json",
        "config": {
            "mediaType": prefix + "config.v1+json",
            "digest": push_blob(registry, repository, config),
            "size": len(config),
        },
        "layers": [{"mediaType": prefix + "layer.v1.tar", "digest": layer, "size": len(tar)}],
    }
    put(f"http://{registry}/v2/{repository}/manifests/{tag}", json.dumps(manifest).encode(), prefix + "manifest.v1+json")


def machine() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def busybox_layer() -> bytes:
    """busybox with a link for each of its applets."""
    busybox = shutil.which("busybox") or "/bin/busybox"
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("bin", "etc", "tmp", "proc", "sys", "dev"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        content = Path(busybox).read_bytes()
        program = tarfile.TarInfo("bin/busybox")
        program.size, program.mode = len(content), 0o755
        tar.addfile(program, io.BytesIO(content))
        for applet in applets:
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        accounts = b"root:x:0:0:root:/:/bin/sh\n"
        passwd = tarfile.TarInfo("etc/passwd")
        passwd.size, passwd.mode = len(accounts), 0o644
        tar.addfile(passwd, io.BytesIO(accounts))
    return out.getvalue()


def push_blob(registry: str, repository: str, content: bytes) -> str:
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    request = urllib.request.Request(f"http://{registry}/v2/{repository}/blobs/uploads/", method="POST")
    with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
        place = answer.headers["Location"]
    put(f"{place}{'&' if '?' in place else '?'}digest={digest}", content, "application/octet-stream")
    return digest


def put(url: str, content: bytes, media_type: str) -> None:
    request = urllib.request.Request(url, content, {"Content-Type": media_type}, method="PUT")
    urllib.request.urlopen(request, timeout=LIMIT_S).close()


# What a node must not have more of afterwards


def traces() -> dict[str, set[str]]:
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    links = set(os.listdir("/sys/class/net"))
    groups = {
        os.path.join(top, name) for top, names, _ in os.walk("/sys/fs/cgroup") for name in names if name.startswith("crio")
    }
    monitors = set()
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if b"conmon" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]:
                monitors.add(pid)
    return {"mounts": mounts, "interfaces": links, "cgroups": groups, "monitors": monitors}


if __name__ == "__main__":
    sys.exit(main())
