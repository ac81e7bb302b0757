"""Sizes of terminals as Kubernetes' clients send them.

Source: k8s.io/cri-streaming, remotecommand (TerminalSize).
"""

from typing import Final

import msgspec

_MAX_SIZE: Final = 0xFFFF  # struct winsize


def parse_size(document: bytes) -> tuple[int, int]:
    """Rows and columns of `{"Width": 80, "Height": 24}`; keys in any case, as Go's decoder takes them.

    Raises:
        ValueError: anything else, or a side that is not in 1-65535.
    """
    try:
        found = msgspec.json.decode(document, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"no JSON object: {error}") from None
    sides = {key.lower(): value for key, value in found.items()}
    rows, columns = sides.get("height"), sides.get("width")
    if type(rows) is not int or type(columns) is not int or not (0 < rows <= _MAX_SIZE and 0 < columns <= _MAX_SIZE):
        raise ValueError(f"no Width and Height in 1-{_MAX_SIZE}")
    return rows, columns
