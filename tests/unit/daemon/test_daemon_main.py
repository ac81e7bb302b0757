"""What few daemons need is loaded by the first thing that needs it: an idle daemon is not to pay for it."""

import subprocess
import sys

SELDOM = (
    "cryptography difflib jeepney termios wsproto yaml zstandard "
    "google.protobuf.descriptor_pool google.protobuf.internal.python_message google.protobuf.text_format"
)


def test_what_few_daemons_need_is_not_loaded_with_them() -> None:
    code = "import sys, criollo.cli.main, criollo.daemon.main; print(*(set(sys.argv[1:]) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code, *SELDOM.split()], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
