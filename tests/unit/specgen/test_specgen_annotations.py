"""Which annotations reach a spec."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from specgen_requests import config, pod, request

from criollo.errors import Invalid
from criollo.model.container import Mount
from criollo.model.pod import NamespaceMode, Namespaces
from criollo.specgen.annotations import annotations, permitted
from criollo.specgen.asked import FORMER
from criollo.specgen.request import Defaults, PlannedMount


def test_container_wins_over_pod_and_pod_over_defaults() -> None:
    made = annotations(
        request(
            pod=pod(annotations={"a": "pod", "b": "pod"}),
            config=config(annotations={"a": "container"}),
            defaults=Defaults(annotations={"a": "default", "b": "default", "c": "default"}),
        )
    )
    assert (made["a"], made["b"], made["c"]) == ("container", "pod", "default")


@pytest.mark.parametrize(
    "key",
    ["org.systemd.property.Description", "run.oci.handler", "run.oci.keep_original_groups", "krun.cpus",
     "io.kubernetes.cri-o.TTY",
     "io.kubernetes.cri.container-type", "io.container.manager", "io.katacontainers.config.hypervisor.path",
     "unified-cgroup.crio.io", "unified-cgroup.crio.io/ctr", "cdi.k8s.io/x", "module.wasm.image/variant",
     "io.containers.trace-syscall", "bundle", "org.criu.config", "io.kubernetes.cri-o.Devices",
     "io.kubernetes.cri-o.UnifiedCgroup/c",
     "seccomp-profile.kubernetes.cri-o.io/POD", "a\n.crio.io", "umask.crio.io/a\nb"],
)  # fmt: skip
def test_control_words_do_not_come_from_a_pod(key: str) -> None:
    hostile = {key: "value-of-the-pod", "plain": "x"}
    made = annotations(request(pod=pod(annotations=hostile), config=config(annotations=hostile)))
    assert made["plain"] == "x"
    assert key.startswith("a\n") or "value-of-the-pod" not in made.values()


def test_no_list_opens_what_is_ours() -> None:
    asked = {"io.kubernetes.cri-o.TTY": "x", "run.oci.hooks.stdout": "x", "run.oci.seccomp_bpf_data": "x", "krun.cpus": "1"}
    assert permitted(asked, (*asked, "run.oci.")) == {}


def test_properties_of_the_scope_are_for_who_may() -> None:
    asked = {"org.systemd.property.After": "x", "org.systemd.property.Slice": "y"}
    assert permitted(asked, ["org.systemd.property.After"]) == {"org.systemd.property.After": "x"}
    assert permitted(asked, ["org.systemd.property."]) == asked
    made = annotations(
        request(
            pod=pod(annotations={"org.systemd.property.CollectMode": "'inactive'"}),
            defaults=Defaults(systemd_cgroups=True, allowed_annotations=("org.systemd.property.",)),
        )
    )
    assert made["org.systemd.property.CollectMode"] == "'inactive-or-failed'"


@pytest.mark.parametrize(("name", "former"), FORMER.items())
def test_both_names_of_a_feature_count_where_one_is_allowed(name: str, former: str) -> None:
    asked = {name: "1", former: "2", f"{name}/web": "3", f"{former}/web": "4", f"{former}.web": "5"}
    assert permitted(asked, []) == {}
    assert permitted(asked, [name]) == asked
    assert permitted(asked, [former]) == asked


@pytest.mark.parametrize("former", FORMER.values())
def test_a_name_that_only_begins_so_is_no_feature(former: str) -> None:
    assert (f"{former}x" in permitted({f"{former}x": "1"}, [former])) is not former.startswith("io.kubernetes.cri-o.")


def test_what_the_runtime_calls_unsafe_needs_leave() -> None:
    asked = {"org.vendor.knob": "1", "org.vendor.all.x": "2", "plain": "3"}
    unsafe = ("org.vendor.knob", "org.vendor.all.")
    assert permitted(asked, [], unsafe=unsafe) == {"plain": "3"}
    assert permitted(asked, ["org.vendor.knob", "org.vendor.all."], unsafe=unsafe) == asked
    assert permitted(asked, ["org.vendor.all.x"], unsafe=unsafe) == {"org.vendor.all.x": "2", "plain": "3"}


def test_allowed_names_cover_variants_after_a_slash_only() -> None:
    asked = {
        "unified-cgroup.crio.io": "1",
        "unified-cgroup.crio.io/web": "2",
        "unified-cgroup.crio.iox": "3",
        "x.unified-cgroup.crio.io": "4",
    }
    assert permitted(asked, ["unified-cgroup.crio.io"]) == {
        "unified-cgroup.crio.io": "1",
        "unified-cgroup.crio.io/web": "2",
        "unified-cgroup.crio.iox": "3",  # nobody's control word
    }
    assert permitted({"run.oci.handler": "wasm"}, ["run.oci.handler"]) == {"run.oci.handler": "wasm"}
    assert permitted({"module.wasm.image/variant": "compat"}, ["module.wasm.image/"]) == {"module.wasm.image/variant": "compat"}


@pytest.mark.parametrize("value", ["a b", "a,b", "a\n", "a\0"])
def test_allowed_hypervisor_value_cannot_carry_another_argument(value: str) -> None:
    key = "io.katacontainers.config.hypervisor.kernel_params"
    assert permitted({key: "quiet"}, [key]) == {key: "quiet"}
    with pytest.raises(Invalid):
        permitted({key: value}, [key])


@pytest.mark.parametrize("grace", ["1 u'x'", "-1", "١", "", "1\n", "9" * 11])
def test_grace_is_digits_or_nothing(grace: str) -> None:
    asked = pod(annotations={"io.kubernetes.pod.terminationGracePeriod": grace})
    assert "org.systemd.property.TimeoutStopUSec" not in annotations(
        request(pod=asked, defaults=Defaults(systemd_cgroups=True))
    )


def test_grace_becomes_the_stop_timeout_of_the_scope() -> None:
    asked = pod(annotations={"io.kubernetes.pod.terminationGracePeriod": "88"})
    made = annotations(request(pod=asked, defaults=Defaults(systemd_cgroups=True)))
    assert made["org.systemd.property.TimeoutStopUSec"] == "uint64 88000000"
    assert "org.systemd.property.TimeoutStopUSec" not in annotations(request(pod=asked))


def test_infra_container_says_it_is_the_sandbox() -> None:
    assert annotations(request(is_infra=True))["io.kubernetes.cri.container-type"] == "sandbox"
    assert annotations(request())["io.kubernetes.cri.container-type"] == "container"


def test_configured_annotations_are_left_as_they_are() -> None:
    configured = {"a": "default"}
    annotations(request(defaults=Defaults(annotations=configured), config=config(annotations={"a": "x"})))
    assert configured == {"a": "default"}


@given(st.dictionaries(st.text(max_size=30), st.text(max_size=10), max_size=4))
def test_nothing_of_ours_ever_passes(asked: dict[str, str]) -> None:
    prefixed = {prefix + key: value for key, value in asked.items() for prefix in ("run.oci.", "krun.", "io.kubernetes.cri-o.")}
    assert permitted(prefixed, tuple(prefixed)) == {}


@pytest.mark.parametrize(
    ("allowed", "passes"),
    [
        ((), set()),
        (("dev.gvisor.flag.network",), {"dev.gvisor.flag.network"}),
        (("dev.gvisor.",), {"dev.gvisor.flag.network", "dev.gvisor.spec.mount/x"}),
        (("dev.gvisor.spec.mount",), {"dev.gvisor.spec.mount/x"}),
        (("dev.gvisor",), set()),
    ],
)
def test_a_runtime_whose_words_nobody_knows_gets_those_of_kubernetes_and_what_is_allowed(
    allowed: tuple[str, ...], passes: set[str]
) -> None:
    names = ("kubernetes.io/config.source", "kubectl.kubernetes.io/restartedAt", "x.k8s.io/y", "io.kubernetes.container.hash")
    known = dict.fromkeys(names, "x")
    asked = {**known, "dev.gvisor.flag.network": "host", "dev.gvisor.spec.mount/x": "1", "notkubernetes.io/x": "1", "a": "b"}
    assert permitted(asked, allowed, listed_only=True) == known | {key: asked[key] for key in passes}
    assert permitted(asked, allowed) == asked


@given(key=st.text(st.sampled_from("abk8s.io/-"), min_size=1, max_size=20), allowed=st.lists(st.text("ab./", max_size=4)))
def test_the_shorter_list_is_never_longer(key: str, allowed: list[str]) -> None:
    found = permitted({key: "v"}, allowed, listed_only=True)
    assert found.items() <= permitted({key: "v"}, allowed).items()
    assert found == {} or key in allowed or any(key.startswith(name) for name in allowed) or "k8s.io/" in key


def test_a_container_is_described_as_hooks_and_tools_know_it_from_crio() -> None:
    made = annotations(
        request(
            config=config(labels={"app": "x"}, annotations={"a": "b"}, attempt=3),
            pod=pod(ips=("10.0.0.5", "fd00::5")),
            mounts=(PlannedMount(mount=Mount(container_path="/v", readonly=True), source="/real"),),
            image_name="busybox",
            image_id="sha256:1",
            image_ref="busybox@sha256:2",
            created_ns=1_700_000_000_000_000_001,
        )
    )
    own = {key.removeprefix("io.kubernetes.cri-o."): value for key, value in made.items()}
    assert made["io.container.manager"] == "cri-o"
    assert json.loads(own["Labels"]) == {"app": "x"}
    assert json.loads(own["Annotations"]) == {"a": "b"}
    assert json.loads(own["Metadata"]) == {"name": "web", "attempt": 3}
    assert json.loads(own["Volumes"])[0] == {
        "container_path": "/v",
        "host_path": "/real",
        "readonly": True,
        "recursive_read_only": False,
        "propagation": 0,
        "selinux_relabel": False,
    }
    assert (own["Image"], own["ImageRef"], own["ImageRepoDigests"]) == ("busybox", "sha256:1", "busybox@sha256:2")
    assert (own["IP.0"], own["IP.1"], own["Created"]) == ("10.0.0.5", "fd00::5", "2023-11-14T22:13:20.000000001Z")
    assert (own["ResolvPath"], own["MountPoint"]) == ("/run/pod/resolv.conf", made["io.kubernetes.cri-o.MountPoint"])
    assert "HostNetwork" not in own


def test_an_infra_container_is_described_by_its_pod() -> None:
    shared = Namespaces(network=NamespaceMode.NODE, pid=NamespaceMode.POD)
    made = annotations(request(pod=pod(shared, cgroup_parent="/kubepods/p"), is_infra=True))
    own = {key.removeprefix("io.kubernetes.cri-o."): value for key, value in made.items()}
    assert (own["HostNetwork"], own["PrivilegedRuntime"], own["CgroupParent"]) == ("true", "false", "/kubepods/p")
    assert json.loads(own["NamespaceOptions"]) == {"network": 2}
    assert json.loads(own["Metadata"]) == {"name": "front", "uid": "11-22", "namespace": "shop", "attempt": 0}
    assert (own["ShmPath"], own["HostnamePath"], own["PortMappings"]) == ("/run/pod/shm", "/run/pod/hostname", "[]")
    assert "Volumes" not in own
