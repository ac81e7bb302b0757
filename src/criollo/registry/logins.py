"""Where credentials come from when the caller has none: auth files and programs, in their order.

An entry is for the host, namespace or repository that it names, so a mirror gets what stands there for the mirror, and never
what stands there for the registry it mirrors (threats R12).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from criollo.aio.locks import KeyedLocks
from criollo.errors import Unauthenticated
from criollo.registry import auth_files, programs
from criollo.registry.auth import Credentials
from criollo.registry.auth_files import AuthFile, Source
from criollo.registry.endpoints import Endpoint
from criollo.registry.lifeline import Lifeline
from criollo.registry.registries_conf import AUTH_FILES
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_KEEP_S: Final = 60  # a pull asks for each blob; the program is asked once
_MAX_KEPT: Final = 64


class Logins:
    """Files and programs; `find` is called in transfer threads."""

    def __init__(
        self,
        paths: Sequence[Path] = (),
        *,
        programs: Sequence[str] = (AUTH_FILES,),
        environ: Mapping[str, str] | None = None,
        given: AuthFile | None = None,
    ) -> None:
        """`programs` is the list `credential-helpers` of registries.conf, in which one word stands for the files.

        `given` is a file that was read already, for one pull; programs that it names are not run.
        """
        self._paths, self._programs, self._given = tuple(paths), tuple(programs), given
        self._environ = dict(environ or {})
        self._locks = KeyedLocks()
        self._kept: dict[tuple[str, str], tuple[float, Credentials | None]] = {}

    def sources(self, endpoint: Endpoint) -> Iterator[Source]:
        """Where to look for credentials for an endpoint, in order; nothing is run.

        Raises:
            Invalid: a file is malformed; its secrets are not shown.
        """
        if self._given is not None:
            yield from (source for source in self._given.sources(endpoint) if not source.program)
            return
        for name in self._programs:
            if name != AUTH_FILES:
                yield Source("credential-helpers of registries.conf", program=name, server=endpoint.host)
                continue
            for path in self._paths:
                file = auth_files.read(path)
                yield from file.sources(endpoint) if file is not None else ()

    def find(self, endpoint: Endpoint, lifeline: Lifeline) -> Credentials | None:
        """The first credentials that a source has; a program that fails is passed over, loudly.

        Raises:
            Invalid: a file is malformed.
            Aborted: the transfer was ended.
        """
        for source in self.sources(endpoint):
            found = source.credentials if not source.program else lifeline.on_loop(self._ask(source))
            if found is not None:
                return found
        return None

    async def _ask(self, source: Source) -> Credentials | None:
        key = (source.program, source.server)
        async with self._locks.hold(key):
            until, found = self._kept.get(key, (0.0, None))
            if until > time.monotonic():
                return found
            try:
                found = await programs.get(source.program, source.server, environ=self._environ)
            except Unauthenticated as error:
                log.warning("credential program failed", program=source.program, registry=source.server, error=error)
                found = None
            if len(self._kept) >= _MAX_KEPT:
                self._kept.clear()
            self._kept[key] = (time.monotonic() + _KEEP_S, found)
            return found
