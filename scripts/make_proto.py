"""Generate the Python code of api.proto: `python scripts/make_proto.py [DIRECTORY]` (default: src, in place).

Needs grpcio-tools at the version in requirements/dev.txt: another one writes other bytes, and a test compares them.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

SOURCE = Path(__file__).resolve().parent.parent / "src"
PROTO = "criollo/cri/pb/api.proto"
CODE = '''"""Generated from {proto} by scripts/make_proto.py: its messages and enums, which criollo.cri.proto declares here."""

from criollo.cri.proto import declare

DESCRIPTOR = declare(
{compiled}
    globals(),
)
'''


def main() -> int:
    from grpc_tools import protoc

    target = Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE
    with TemporaryDirectory() as directory:
        compiled = Path(directory, "api.binpb")
        words = [f"-I{SOURCE}", f"--descriptor_set_out={compiled}", f"--pyi_out={target}", PROTO]
        if status := protoc.main(["protoc", *words]):
            return int(status)
        (target / PROTO).with_name("api_pb2.py").write_text(_code(compiled.read_bytes()))
    return 0


def _code(files: bytes) -> str:
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    [only] = FileDescriptorSet.FromString(files).file
    compiled = only.SerializeToString(deterministic=True)
    lines = [f"    {compiled[at : at + 32]!r}" for at in range(0, len(compiled), 32)]
    return CODE.format(proto=PROTO, compiled="\n".join(lines) + ",")


if __name__ == "__main__":
    sys.exit(main())
