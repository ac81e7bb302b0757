"""TLS of the streaming server: a certificate that can be replaced while it serves, and clients that must have one too.

certificates = Certificates(TlsFiles(cert=…, key=…, ca=…)); certificates.load()
certificates.context        # for the next connection; `watch` loads changed files, and keeps what it has if they are broken
"""

import hashlib
import ssl
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import msgspec

from criollo.aio import threads
from criollo.aio.watch import changes
from criollo.errors import Invalid
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What TLS is made of. `ciphers`: names of OpenSSL for TLS 1.2, empty for its own choice. `names`: for messages."""

    cert: Path
    key: Path
    ca: Path | None = None
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    ciphers: tuple[str, ...] = ()
    names: tuple[str, str] = ("TLS of the streaming server", "stream_tls_cert")

    @property
    def paths(self) -> Sequence[Path]:
        return (self.cert, self.key) if self.ca is None else (self.cert, self.key, self.ca)


class Certificates:
    """The context that new connections get."""

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        self.context: ssl.SSLContext
        self._loaded: tuple[bytes, ...] = ()

    def load(self) -> bool:
        """Load the files, unless they are those in use; whether they were others. On an error the old ones stay in use.

        Raises:
            Invalid: a file is missing, or is not what it should be; or key and certificate do not belong together.
        """
        found = tuple(_digest(path, self.files.names[0]) for path in self.files.paths)
        if found == self._loaded:
            return False
        self.context = _context(self.files)
        self._loaded = found
        return True

    async def watch(self) -> None:
        """Load the files again when they change, until cancelled."""
        directories = {place for path in self.files.paths for place in (path.parent, path.resolve().parent)}
        async with aclosing(changes(sorted(directories))) as bursts:
            async for _ in bursts:
                try:
                    if await threads.files(self.load):
                        log.info("reloading certificates", cert=self.files.cert)
                except Invalid as error:
                    log.warning("certificates cannot be reloaded; the previous ones stay in use", cause=error)


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = files.minimum
    # A session is opened once: nothing to resume, and no ticket that outlives a change of the authorities.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    if files.ciphers:
        try:
            context.set_ciphers(":".join(files.ciphers))
        except ssl.SSLError as error:
            raise Invalid("tls_cipher_suites", ", ".join(files.ciphers), "suites that this OpenSSL has") from error
    try:
        context.load_cert_chain(files.cert, files.key, password="")  # or OpenSSL asks the terminal
    except (OSError, ValueError) as error:
        expected = f"a certificate in PEM, whose key, not encrypted, is in {files.key}"
        raise Invalid(files.names[1], str(files.cert), f"{expected}: {_reason(error)}") from error
    if files.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(files.ca)
        except (OSError, ValueError) as error:
            raise Invalid("stream_tls_ca", str(files.ca), f"certificates of authorities in PEM: {_reason(error)}") from error
    return context


def _digest(path: Path, name: str) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        raise Invalid(name, str(path), f"a readable file: {error.strerror}") from error


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
