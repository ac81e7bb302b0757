"""network.plugins: requests to plugins."""

import json

import pytest

from criollo.network.conflist import Network, parse
from criollo.network.plugins import derive, only_passes

PREVIOUS: dict[str, object] = {"ips": []}
PORTS: dict[str, object] = {"portMappings": [{"hostPort": 1}], "mac": "02:00:00:00:00:01"}


def network(*plugins: dict[str, object], version: str = "1.0.0") -> Network:
    return parse(json.dumps({"cniVersion": version, "name": "net", "plugins": plugins}).encode())


def test_request_is_the_conf_with_version_and_name() -> None:
    net = network({"type": "bridge", "mtu": 1400})
    assert derive(net, net.plugins[0]) == {"type": "bridge", "mtu": 1400, "cniVersion": "1.0.0", "name": "net"}


def test_capabilities_are_taken_out_and_only_declared_ones_filled() -> None:
    net = network({"type": "portmap", "capabilities": {"portMappings": True, "bandwidth": True}})
    request = derive(net, net.plugins[0], capability_args=PORTS)
    assert "capabilities" not in request
    assert request["runtimeConfig"] == {"portMappings": [{"hostPort": 1}]}


def test_nothing_declared_gives_no_runtime_config() -> None:
    net = network({"type": "portmap"})
    assert "runtimeConfig" not in derive(net, net.plugins[0], capability_args=PORTS)


def test_protocol_keys_of_the_conf_do_not_pass() -> None:
    net = network({"type": "bridge", "cni.dev/valid-attachments": []})
    assert "cni.dev/valid-attachments" not in derive(net, net.plugins[0])


def test_list_keys_of_the_one_plugin_form_do_not_pass() -> None:
    source = {"cniVersion": "1.0.0", "cniVersions": ["1.0.0"], "name": "net", "type": "bridge", "disableCheck": True}
    net = parse(json.dumps(source).encode())
    assert set(derive(net, net.plugins[0])) == {"cniVersion", "name", "type"}


def test_the_kept_conf_is_not_changed_by_deriving() -> None:
    net = network({"type": "portmap", "capabilities": {"portMappings": True}})
    before = json.dumps(net.plugins[0].conf)
    derive(net, net.plugins[0], capability_args=PORTS, previous=PREVIOUS)
    assert json.dumps(net.plugins[0].conf) == before


PORTMAP: dict[str, object] = {"type": "portmap", "capabilities": {"portMappings": True}}
BANDWIDTH: dict[str, object] = {"type": "bandwidth", "capabilities": {"bandwidth": True}}


@pytest.mark.parametrize(
    ("conf", "given", "previous", "passes"),
    [
        (PORTMAP, {}, PREVIOUS, True),
        (PORTMAP, PORTS, PREVIOUS, False),
        (PORTMAP, {}, None, False),
        ({"type": "portmap"}, PORTS, PREVIOUS, True),
        ({"type": "portmap", "runtimeConfig": {"portMappings": [{"hostPort": 1}]}}, {}, PREVIOUS, False),
        (BANDWIDTH, {}, PREVIOUS, True),
        (BANDWIDTH, {"bandwidth": {"ingressRate": 1}}, PREVIOUS, False),
        ({**BANDWIDTH, "ingressRate": 1000}, {}, PREVIOUS, False),
        ({"type": "tuning"}, {}, PREVIOUS, False),
        ({"type": "firewall"}, {}, PREVIOUS, False),
    ],
)
def test_only_known_plugins_with_nothing_to_do_pass(
    conf: dict[str, object], given: dict[str, object], previous: dict[str, object] | None, passes: bool
) -> None:
    net = network(conf)
    assert only_passes(derive(net, net.plugins[0], capability_args=given, previous=previous)) is passes
