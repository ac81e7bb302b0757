"""linux.sandbox: what a worker says where its root cannot be changed."""

import subprocess
import sys
from pathlib import Path

IN_A_CHROOT = """
import os, sys
from criollo.errors import Unsupported
from criollo.linux import sandbox
os.chroot(sys.argv[1])
try:
    sandbox.enter(os.open("/", os.O_PATH | os.O_DIRECTORY))
except Unsupported as error:
    print(error)
"""


def test_a_chroot_is_named_with_what_to_do(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", IN_A_CHROOT, tmp_path], capture_output=True, text=True, check=True)
    assert "chroot" in ended.stdout
    assert "bind the new root on itself" in ended.stdout
