from typing import Any

import pytest

from criollo.cri.pb import api_pb2 as pb
from criollo.errors import Invalid
from criollo.kpod.containerspec import MASKED
from criollo.kpod.manifest import read_pod
from criollo.kpod.podspec import MADE_BY_LABEL, Origin, PodPlan, make_plan, pod_uid

ORIGIN = Origin(uid="u-1", made_by="play", log_dir="/logs/p", volumes_dir="/vol/u-1", resolv_conf="")


def plan(origin: Origin = ORIGIN, /, *, metadata: dict[str, Any] | None = None, **spec: Any) -> PodPlan:
    containers = spec.pop("containers", [{"name": "a", "image": "x:1"}])
    metadata = {"name": "p", **(metadata or {})}
    return make_plan(read_pod({"metadata": metadata, "spec": {"containers": containers, **spec}}, "f"), origin)


def container(**fields: Any) -> Any:
    """The message of a pod's only container."""
    return only(plan(containers=[{"name": "a", "image": "x:1", **fields}]))


def only(found: PodPlan) -> Any:
    [one] = found.containers
    return one.config


def test_the_sandbox_is_named_labelled_and_logged_as_kubelet_does() -> None:
    sandbox = plan(metadata={"namespace": "n", "labels": {"app": "a"}, "annotations": {"k": "v"}}).sandbox
    assert (sandbox.metadata.name, sandbox.metadata.namespace, sandbox.metadata.uid) == ("p", "n", "u-1")
    assert dict(sandbox.labels) == {
        "app": "a",
        "io.kubernetes.pod.name": "p",
        "io.kubernetes.pod.namespace": "n",
        "io.kubernetes.pod.uid": "u-1",
        MADE_BY_LABEL: "play",
    }
    assert (dict(sandbox.annotations), sandbox.hostname, sandbox.log_directory) == ({"k": "v"}, "p", "/logs/p")


def test_a_label_of_the_manifest_cannot_pose_as_ours() -> None:
    assert plan(metadata={"labels": {MADE_BY_LABEL: "x"}}).sandbox.labels[MADE_BY_LABEL] == "play"


@pytest.mark.parametrize(
    ("spec", "modes"),
    [
        ({}, (pb.POD, pb.CONTAINER, pb.POD)),
        ({"shareProcessNamespace": True}, (pb.POD, pb.POD, pb.POD)),
        ({"hostNetwork": True, "hostPID": True, "hostIPC": True}, (pb.NODE, pb.NODE, pb.NODE)),
    ],
)
def test_namespaces_are_the_same_for_pod_and_container(spec: dict[str, Any], modes: tuple[int, int, int]) -> None:
    found = plan(**spec)
    for linux in (found.sandbox.linux, found.containers[0].config.linux):
        options = linux.security_context.namespace_options
        assert (options.network, options.pid, options.ipc) == modes


def test_ports_are_mapped_unless_the_pod_has_the_nodes_network() -> None:
    containers = [
        {
            "name": "a",
            "image": "x",
            "ports": [{"containerPort": 80, "hostPort": 8080, "protocol": "UDP"}, {"containerPort": 81}],
        }
    ]
    [port] = plan(containers=containers).sandbox.port_mappings
    assert (port.container_port, port.host_port, port.protocol) == (80, 8080, pb.UDP)
    assert not plan(containers=containers, hostNetwork=True).sandbox.port_mappings


def test_dns_adds_to_the_nodes_unless_told_not_to() -> None:
    origin = ORIGIN._replace(resolv_conf="search a.b\nnameserver 1.1.1.1\noptions ndots:1 edns0\n")
    config = {"nameservers": ["9.9.9.9"], "searches": ["c"], "options": [{"name": "ndots", "value": "5"}, {"name": "rotate"}]}
    both = plan(origin, dnsConfig=config).sandbox.dns_config
    assert list(both.servers) == ["1.1.1.1", "9.9.9.9"]
    assert (list(both.searches), list(both.options)) == (["a.b", "c"], ["edns0", "ndots:5", "rotate"])
    alone = plan(origin, dnsConfig=config, dnsPolicy="None").sandbox.dns_config
    assert list(alone.servers) == ["9.9.9.9"]
    assert not plan(origin).sandbox.HasField("dns_config")


def test_variables_expand_in_order_and_commands_with_all_of_them() -> None:
    message = container(
        env=[
            {"name": "A", "value": "$(B) $(NAME)"},
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
            {"name": "B", "value": "$(NAME)!"},
        ],
        command=["run", "$(B)", "$$(B)", "$(C)"],
        args=["$(UID)"],
    )
    assert {each.key: each.value for each in message.envs} == {"A": b"$(B) $(NAME)", "NAME": b"p", "UID": b"u-1", "B": b"p!"}
    assert (list(message.command), list(message.args)) == (["run", "p!", "$(B)", "$(C)"], ["u-1"])


def test_a_variable_without_value_here_is_left_out_with_a_warning() -> None:
    found = plan(
        containers=[
            {"name": "a", "image": "x", "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]}
        ]
    )
    assert not only(found).envs
    assert found.warnings == ("spec.containers[0].env[0].valueFrom is not supported: IP is left out",)


def test_volumes_are_host_paths_or_places_of_the_pod() -> None:
    found = plan(
        volumes=[
            {"name": "h", "hostPath": {"path": "/srv", "type": "Directory"}},
            {"name": "e", "emptyDir": {}},
            {"name": "c", "configMap": {"name": "x"}},
        ],
        containers=[
            {
                "name": "a",
                "image": "x",
                "volumeMounts": [
                    {"name": "h", "mountPath": "/h", "readOnly": True, "mountPropagation": "HostToContainer"},
                    {"name": "e", "mountPath": "/e"},
                    {"name": "c", "mountPath": "/c"},
                ],
            }
        ],
    )
    assert [tuple(volume) for volume in found.volumes] == [("/srv", "Directory"), ("/vol/u-1/e", "emptyDir")]
    host, empty = only(found).mounts
    assert (host.host_path, host.readonly, host.propagation) == ("/srv", True, pb.PROPAGATION_HOST_TO_CONTAINER)
    assert (empty.host_path, empty.readonly) == ("/vol/u-1/e", False)
    assert found.warnings == (
        "spec.containers[0].volumeMounts[2]: the kind of volume c is not supported: nothing is mounted at /c",
    )


def test_security_of_the_container_wins_over_the_pods() -> None:
    security = {
        "runAsUser": 0,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
    }
    found = plan(
        securityContext={
            "runAsUser": 5,
            "runAsGroup": 6,
            "supplementalGroups": [7],
            "sysctls": [{"name": "net.a", "value": "1"}],
        },
        containers=[{"name": "a", "image": "x", "securityContext": security}],
    )
    context = only(found).linux.security_context
    assert (context.run_as_user.value, context.run_as_group.value, list(context.supplemental_groups)) == (0, 6, [7])
    assert (context.readonly_rootfs, context.no_new_privs) == (True, True)
    assert list(context.capabilities.add_capabilities) == ["NET_ADMIN"]
    assert list(context.capabilities.drop_capabilities) == ["ALL"]
    assert dict(found.sandbox.linux.sysctls) == {"net.a": "1"}


def test_a_user_that_is_not_given_is_the_images() -> None:
    assert not container().linux.security_context.HasField("run_as_user")


def test_only_privileged_containers_see_all_of_proc() -> None:
    assert tuple(container().linux.security_context.masked_paths) == MASKED
    privileged = plan(containers=[{"name": "a", "image": "x", "securityContext": {"privileged": True}}])
    context = only(privileged).linux.security_context
    assert (context.privileged, list(context.masked_paths), list(context.readonly_paths)) == (True, [], [])
    assert privileged.sandbox.linux.security_context.privileged


def test_resources_are_kubelets() -> None:
    resources = container(resources={"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": 0.25}}).linux.resources
    assert (resources.cpu_shares, resources.cpu_quota, resources.cpu_period) == (256, 50_000, 100_000)
    assert resources.memory_limit_in_bytes == 64 << 20
    assert container(resources={"limits": {"cpu": 2}}).linux.resources.cpu_shares == 2048
    assert container().linux.resources == pb.LinuxContainerResources()


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("x", "Always"),
        ("x:latest", "Always"),
        ("host:5000/x", "Always"),
        ("x:1", "IfNotPresent"),
        ("host:5000/x:1", "IfNotPresent"),
        ("x@sha256:" + "a" * 64, "IfNotPresent"),
    ],
)
def test_the_usual_pull_policy_depends_on_the_tag(image: str, policy: str) -> None:
    assert plan(containers=[{"name": "a", "image": image}]).containers[0].pull == policy


def test_init_containers_come_first_and_sidecars_do_not_hold_up() -> None:
    init = [{"name": "i", "image": "x"}, {"name": "s", "image": "x", "restartPolicy": "Always"}]
    found = plan(initContainers=init).containers
    assert [(each.config.metadata.name, each.runs_to_end) for each in found] == [("i", True), ("s", False), ("a", False)]


def test_who_expects_restarts_is_told() -> None:
    assert plan(restartPolicy="Always").warnings == ("spec.restartPolicy Always: nothing restarts containers here",)
    assert plan(restartPolicy="Never").warnings == ()


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"env": [{"name": "A=B", "value": ""}]}, "spec.containers[0].env[0].name"),
        ({"env": [{"name": "A", "value": "x", "valueFrom": {}}]}, "spec.containers[0].env[0]"),
        ({"env": [{"name": "A", "value": "\0"}]}, "spec.containers[0].env[0].value"),
        ({"volumeMounts": [{"name": "none", "mountPath": "/x"}]}, "spec.containers[0].volumeMounts[0].name"),
        ({"volumeMounts": [{"name": "v", "mountPath": "x"}]}, "spec.containers[0].volumeMounts[0].mountPath"),
        ({"volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "a"}]}, "spec.containers[0].volumeMounts[0].subPath"),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/x", "mountPropagation": "Up"}]},
            "spec.containers[0].volumeMounts[0].mountPropagation",
        ),
        ({"resources": {"limits": {"cpu": "much"}}}, "spec.containers[0].resources.limits.cpu"),
        ({"resources": {"requests": {"memory": "-1"}}}, "spec.containers[0].resources.requests.memory"),
        ({"imagePullPolicy": "Sometimes"}, "imagePullPolicy of container a"),
        ({"ports": [{"containerPort": 0}]}, "spec.containers[0].ports[0]"),
        ({"ports": [{"containerPort": 1, "protocol": "tcp"}]}, "spec.containers[0].ports[0].protocol"),
        (
            {"securityContext": {"privileged": True, "allowPrivilegeEscalation": False}},
            "spec.containers[0].securityContext.allowPrivilegeEscalation",
        ),
    ],
)
def test_a_wrong_value_of_a_container_is_named(fields: dict[str, Any], place: str) -> None:
    with pytest.raises(Invalid) as caught:
        plan(containers=[{"name": "a", "image": "x", **fields}], volumes=[{"name": "v", "emptyDir": {}}])
    assert caught.value.field == place


@pytest.mark.parametrize(
    ("volume", "place"),
    [
        ({"hostPath": {"path": "relative"}}, "spec.volumes[0].hostPath.path"),
        ({"hostPath": {"path": "/a/../b"}}, "spec.volumes[0].hostPath.path"),
        ({"hostPath": {"path": "/a\0b"}}, "spec.volumes[0].hostPath.path"),
        ({"hostPath": {"path": "/a", "type": "Pipe"}}, "spec.volumes[0].hostPath.type"),
        ({"hostPath": {"path": "/a"}, "emptyDir": {}}, "spec.volumes[0]"),
    ],
)
def test_a_wrong_volume_is_named(volume: dict[str, Any], place: str) -> None:
    with pytest.raises(Invalid) as caught:
        plan(volumes=[{"name": "v", **volume}])
    assert caught.value.field == place


def test_uids_are_the_same_for_the_same_name_only() -> None:
    assert pod_uid("a", "b") == pod_uid("a", "b")
    assert len({pod_uid("a", "b"), pod_uid("a", "c"), pod_uid("c", "b")}) == 3
