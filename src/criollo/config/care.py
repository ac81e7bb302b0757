"""The care of the stores: [crio.care]. A table of ours, which CRI-O does not have and skips with a warning."""

from typing import Annotated

from criollo.config.keys import Key, Table
from criollo.config.values import Duration, Size


class Care(Table, frozen=True, kw_only=True):
    """Scrub and preloaded images: [crio.care]."""

    scrub_rate: Annotated[
        Size,
        Key("Bytes a second that the scrub reads, when nobody else wants the disk, like '8MiB'. Empty or 0: no scrub."),
    ] = Size(0, "")
    scrub_every: Annotated[Duration, Key("How long after a layer was found whole its turn comes again.")] = Duration(
        7 * 86400.0, "168h"
    )
    preload_dir: Annotated[
        str,
        Key("Image archives and layouts that are imported at start and when they appear, and pinned.", absolute=True),
    ] = ""
