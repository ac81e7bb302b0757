"""Generate the Python code of api.proto: `python scripts/make_proto.py [DIRECTORY]` (default: src, in place).

Needs grpcio-tools at the version in requirements/dev.txt: another one writes other bytes, and a test compares them.
"""

import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src"
PROTO = "criollo/cri/pb/api.proto"


def main() -> int:
    from grpc_tools import protoc

    target = Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE
    return int(protoc.main(["protoc", f"-I{SOURCE}", f"--python_out={target}", f"--pyi_out={target}", PROTO]))


if __name__ == "__main__":
    sys.exit(main())
