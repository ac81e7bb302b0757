"""gRPC stubs for the client, generated from our own api.proto."""

import subprocess
import sys
from pathlib import Path

PROTO = Path(__file__).parents[1] / "src/criollo/cri/pb/api.proto"


def generate(directory: Path) -> None:
    """Write api_pb2.py and api_pb2_grpc.py."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO.parent}"]
    subprocess.run([*command, f"--python_out={directory}", f"--grpc_python_out={directory}", PROTO.name], check=True)
