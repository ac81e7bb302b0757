"""The generated messages are those of the published interface, and generated from our file."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from criollo.cri.pb import api_pb2 as pb

ROOT = Path(__file__).resolve().parents[3]
FACTS = Path(__file__).with_name("cri-v1.txt").read_text()
_SCALARS = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_UINT64: "uint64",
    FieldDescriptor.TYPE_DOUBLE: "double",
}


def _type(field: FieldDescriptor) -> str:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        return f"map<{_type(key)}, {_type(value)}>"
    named: Any = field.message_type or field.enum_type
    name = named.full_name.removeprefix("runtime.v1.") if named else _SCALARS[field.type]
    return f"repeated {name}" if field.is_repeated else name


def _message(described: Descriptor) -> set[str]:
    return {
        f"{field.number} {field.name}: {_type(field)}" + ("  (deprecated)" if field.GetOptions().deprecated else "")
        for field in described.fields
    }


def _enum(described: EnumDescriptor) -> set[str]:
    return {f"{value.number} {value.name}" for value in described.values}


def _ours() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for service in pb.DESCRIPTOR.services_by_name.values():
        found[f"service {service.full_name}"] = {
            f"{m.name}: {m.input_type.full_name} -> {'stream ' if m.server_streaming else ''}{m.output_type.full_name}"
            for m in service.methods
        }
    for name, enum in pb.DESCRIPTOR.enum_types_by_name.items():
        found[f"enum {name}"] = _enum(enum)
    for name, message in pb.DESCRIPTOR.message_types_by_name.items():
        found[f"message {name}"] = _message(message)
        for nested in message.enum_types:
            found[f"enum {name}.{nested.name}"] = _enum(nested)
    return found


def _theirs() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    head = ""
    for line in FACTS.splitlines():
        if line.startswith((" ", "\t")):
            found[head].add(line.strip())
        elif line and not line.startswith("#"):
            head = line.strip()
            found[head] = set()
    return found


@pytest.mark.parametrize("name", sorted(_theirs()))
def test_definition_matches_the_published_interface(name: str) -> None:
    assert _ours()[name] == _theirs()[name]


def test_nothing_is_defined_beyond_the_published_interface() -> None:
    assert _ours().keys() == _theirs().keys()


def test_generated_code_is_what_the_proto_file_gives(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "scripts/make_proto.py", tmp_path], check=True)
    for name in ("api_pb2.py", "api_pb2.pyi"):
        made, kept = tmp_path / "criollo/cri/pb" / name, ROOT / "src/criollo/cri/pb" / name
        assert made.read_bytes() == kept.read_bytes(), f"{name} is stale: run scripts/make_proto.py"


_SHOWN = """
import sys
if sys.argv[1] == "absent":
    sys.modules["google._upb"] = None
if sys.argv[1] == "changed":
    from google._upb import _message
    from google.protobuf import message_factory
    _message.MessageMeta = None
from criollo.cri import client, server
from criollo.cri.pb import api_pb2 as pb
config = pb.PodSandboxConfig(labels={"a": "b"}, linux=pb.LinuxPodSandboxConfig(sysctls={"c": "d"}))
config.port_mappings.add(container_port=80, protocol=pb.UDP)
print(config.SerializeToString(deterministic=True).hex(), config)
print(pb.PodSandboxConfig.FromString(config.SerializeToString()) == config, pb.ContainerState.Name(1), pb.Signal.items())
print(pb.SecurityProfile.Localhost, sorted(name for name in vars(pb) if not name.startswith("__")))
print("google.protobuf.internal.python_message" in sys.modules, file=sys.stderr)
"""


def _shown(part_in_c: str) -> tuple[str, str]:
    done = subprocess.run([sys.executable, "-c", _SHOWN, part_in_c], capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


@pytest.mark.parametrize("part_in_c", ["absent", "changed"])
def test_messages_are_the_same_without_the_part_in_c(part_in_c: str) -> None:
    shown, loaded = _shown(part_in_c)
    assert loaded == "True\n"
    assert shown == _shown("there")[0]


def test_protobufs_own_python_is_not_loaded() -> None:
    assert _shown("there")[1] == "False\n"


def test_every_method_and_credential_is_marked() -> None:
    proto = (ROOT / "src/criollo/cri/pb/api.proto").read_text()
    for line_before, line in zip(proto.splitlines(), proto.splitlines()[1:], strict=False):
        if re.match(r"\s+rpc ", line):
            assert line_before.strip().startswith("//")
    marked = {f.name for f in pb.AuthConfig.DESCRIPTOR.fields if f.GetOptions().debug_redact}
    assert marked == {"password", "auth", "identity_token", "registry_token"}
