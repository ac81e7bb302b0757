"""Whole specs, compared with reviewed files. Set GOLDEN_WRITE=1 to write them anew, and read the diff."""

import json
import os
from pathlib import Path

import pytest
from specgen_requests import HOST, WEAK_HOST, config, pod, request, security

from criollo.errors import Invalid
from criollo.model.container import Capabilities, Mount, Propagation
from criollo.model.pod import HugepageLimit, IdMapping, NamespaceMode, Namespaces, ProfileType, Resources, SecurityProfile
from criollo.oci import runtime_spec
from criollo.security import seccomp
from criollo.security.capabilities import DEFAULT
from criollo.security.seccomp import Profile
from criollo.security.seccomp_default import default_profile
from criollo.security.seccomp_rules import Target
from criollo.specgen.build import build
from criollo.specgen.host import HostFacts
from criollo.specgen.request import (
    Confinement,
    Defaults,
    DeviceNode,
    ImageDefaults,
    PlannedMount,
    SourcePropagation,
    SpecRequest,
)
from criollo.specgen.rlimits import parse_ulimit
from criollo.specgen.users import ResolvedUser

GOLDEN = Path(__file__).parent / "golden"
NODE = NamespaceMode.NODE
MASKS = {
    "masked_paths": ("/proc/kcore",),
    "readonly_paths": ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"),
}
MAPPED = (IdMapping(host_id=100000, container_id=0, length=65536),)
EVERYTHING = Namespaces(network=NODE, pid=NODE, ipc=NODE)


def kubelet() -> SpecRequest:
    """What a kubelet sends for an ordinary container."""
    asked = Resources(
        cpu_shares=512,
        cpu_quota_us=50000,
        cpu_period_us=100000,
        memory_limit_bytes=64 << 20,
        oom_score_adj=985,
        hugepage_limits=(HugepageLimit(page_size="2MB", limit_bytes=0), HugepageLimit(page_size="1GB", limit_bytes=0)),
    )
    volumes = (
        Mount(container_path="/etc/hosts", host_path="/var/lib/kubelet/pods/u/etc-hosts"),
        Mount(
            container_path="/var/run/secrets/kubernetes.io/serviceaccount",
            host_path="/var/lib/kubelet/pods/u/token",
            readonly=True,
        ),
        Mount(container_path="/host", host_path="/mnt/shared", propagation=Propagation.HOST_TO_CONTAINER),
    )
    return request(
        config=config(
            args=("--listen", "8080"),
            env=(("KUBERNETES_PORT", "tcp://10.0.0.1:443"),),
            working_dir="/srv",
            mounts=volumes,
            resources=asked,
            annotations={"io.kubernetes.container.restartCount": "0"},
            security=security(**MASKS, no_new_privs=True, run_as_user=1001, capabilities=Capabilities(drop=("KILL",))),
        ),
        user=ResolvedUser(uid=1001, gid=2001, groups=(2001, 3001), home="/home/ada"),
        mounts=tuple(PlannedMount(mount=m, source=m.host_path, propagation=SourcePropagation.SHARED) for m in volumes),
        defaults=Defaults(pids_limit=1024, ulimits=(parse_ulimit("nofile=1024:4096"),)),
        pod=pod(annotations={"example.com/team": "shop", "org.systemd.property.After": "['x']"}),
    )


def privileged() -> SpecRequest:
    null = DeviceNode(path="/dev/kmsg", host_path="/dev/kmsg", type="c", major=1, minor=11, mode=0o644)
    return request(
        config=config(command=("/bin/agent",), tty=True, security=security(privileged=True, namespaces=EVERYTHING, **MASKS)),
        pod=pod(EVERYTHING, network_ns="", ipc_ns="", uts_ns="", shm="/dev/shm", hosts="/etc/hosts"),
        host_devices=(null,),
    )


def user_namespace() -> SpecRequest:
    return request(
        pod=pod(user_ns="/run/userns/x", uids=MAPPED, gids=MAPPED), defaults=Defaults(read_only=True, systemd_cgroups=True)
    )


CASES: list[tuple[str, SpecRequest, HostFacts]] = [
    ("kubelet", kubelet(), HOST),
    ("kubelet-weak-v1", kubelet(), WEAK_HOST),
    ("privileged-host", privileged(), HOST),
    ("user-namespace-readonly", user_namespace(), HOST),
    ("least", request(), HOST),
]


@pytest.mark.parametrize(("name", "asked", "host"), CASES, ids=[case[0] for case in CASES])
def test_spec_is_the_reviewed_one(name: str, asked: SpecRequest, host: HostFacts) -> None:
    built = build(asked, host)
    shown = {"notes": built.notes, "spec": json.loads(runtime_spec.encode(built.spec))}
    text = json.dumps(shown, indent=1, sort_keys=True) + "\n"
    path = GOLDEN / f"{name}.json"
    if os.environ.get("GOLDEN_WRITE"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize(("name", "asked", "host"), CASES, ids=[case[0] for case in CASES])
def test_encoded_spec_reads_back_the_same(name: str, asked: SpecRequest, host: HostFacts) -> None:
    spec = build(asked, host).spec
    assert runtime_spec.decode(runtime_spec.encode(spec)) == spec


def test_same_request_gives_the_same_bytes() -> None:
    assert runtime_spec.encode(build(kubelet(), HOST).spec) == runtime_spec.encode(build(kubelet(), HOST).spec)


class Fixed:
    """A profile whose filter tells for which capabilities it is."""

    def compile(self, target: Target) -> runtime_spec.Seccomp:
        names = tuple(sorted(target.capabilities))
        return runtime_spec.Seccomp(default_action="SCMP_ACT_ERRNO", syscalls=(runtime_spec.Syscall(names=names, action="A"),))


def test_chosen_confinement_is_written() -> None:
    chosen = Confinement(
        seccomp=Profile("/p/strict.json", Fixed(), seccomp.Host("x86_64", (6, 1))),
        apparmor_profile="crio-default",
        process_label="u:r:t:s0",
        mount_label="u:r:f:s0",
    )
    default = SecurityProfile(type=ProfileType.RUNTIME_DEFAULT)
    asked = request(config=config(security=security(seccomp=default, apparmor=default)), confinement=chosen)
    built = build(asked, HOST)
    document = json.loads(runtime_spec.encode(built.spec))
    assert built.notes == ()
    bounding = sorted(document["process"]["capabilities"]["bounding"])
    assert document["linux"]["seccomp"] == {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": bounding, "action": "A"}],
    }
    assert document["annotations"]["io.kubernetes.cri-o.SeccompProfilePath"] == "/p/strict.json"
    assert "run.oci.seccomp_bpf_data" not in document["annotations"]
    assert (document["process"]["apparmorProfile"], document["linux"]["mountLabel"]) == ("crio-default", "u:r:f:s0")


def test_program_of_a_filter_comes_from_us_alone() -> None:
    key = "run.oci.seccomp_bpf_data"
    profile = Profile("RuntimeDefault", default_profile(), seccomp.Host("x86_64", (6, 1)))
    asked = request(
        config=config(annotations={key: "AAAA"}),
        confinement=Confinement(seccomp=profile),
        defaults=Defaults(precompiles_seccomp=True, allowed_annotations=(key,)),
    )
    assert build(asked, HOST).spec.annotations.get(key, "") == profile.filter(DEFAULT, precompiled=True).program
    unconfined = request(config=config(annotations={key: "AAAA"}), defaults=Defaults(allowed_annotations=(key,)))
    assert key not in build(unconfined, HOST).spec.annotations


def test_zero_that_matters_is_written() -> None:
    spec = json.loads(runtime_spec.encode(build(request(image=ImageDefaults(cmd=("x",))), HOST).spec))
    assert spec["process"]["oomScoreAdj"] == 0
    assert spec["process"]["user"] == {"uid": 0, "gid": 0, "umask": 18, "additionalGids": [0]}


def test_hooks_always_say_their_environment() -> None:
    hooks = runtime_spec.Hooks(poststop=(runtime_spec.Hook(path="/bin/true", env=()),))
    spec = json.loads(runtime_spec.encode(build(request(hooks=hooks), HOST).spec))
    assert spec["hooks"] == {"poststop": [{"path": "/bin/true", "env": []}]}


@pytest.mark.parametrize(
    ("user", "field"),
    [
        (ResolvedUser(uid=65536), "user"),
        (ResolvedUser(gid=65536, groups=(65536,)), "group"),
        (ResolvedUser(groups=(0, 70000)), "group"),
    ],
)
def test_users_outside_the_pods_user_namespace_are_refused(user: ResolvedUser, field: str) -> None:
    build(request(user=user), HOST)
    with pytest.raises(Invalid, match=r"user namespace has \(0-65535\)") as error:
        build(request(user=user, pod=pod(user_ns="/run/userns/u", uids=MAPPED, gids=MAPPED)), HOST)
    assert error.value.field == field


def test_last_user_of_the_pods_user_namespace_may_run() -> None:
    last = ResolvedUser(uid=65535, gid=65535, groups=(65535,))
    build(request(user=last, pod=pod(user_ns="/run/userns/u", uids=MAPPED, gids=MAPPED)), HOST)
