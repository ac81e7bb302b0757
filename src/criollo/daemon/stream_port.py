"""The port where clients' sessions come to, and what `tls_min_version` and `tls_cipher_suites` mean for servers of ours."""

import ssl
from pathlib import Path

from criollo.aio.http_server import HttpLimits, HttpServer
from criollo.config.ciphers import openssl_names
from criollo.config.settings import Api
from criollo.streaming.listener import Listener
from criollo.streaming.server import Streaming
from criollo.streaming.tls import Certificates, TlsFiles


def stream_port(api: Api, streaming: Streaming) -> Listener:
    """The port of the settings, not yet open.

    Raises:
        Invalid, HostFailed: its certificates do not let us serve.
    """
    certificates = None
    if api.stream_enable_tls:
        minimum, ciphers = tls_floor(api)
        files = TlsFiles(
            cert=Path(api.stream_tls_cert),
            key=Path(api.stream_tls_key),
            ca=Path(api.stream_tls_ca) if api.stream_tls_ca else None,
            minimum=minimum,
            ciphers=ciphers,
        )
        certificates = Certificates(files)
        certificates.load()
    http = HttpServer({}, HttpLimits(idle_s=10, body_bytes=64 << 10), upgrades=streaming.upgrades())
    return Listener(api.stream_address, int(api.stream_port), serve=http.serve, certificates=certificates)


def tls_floor(api: Api) -> tuple[ssl.TLSVersion, tuple[str, ...]]:
    """The oldest version that is spoken, and OpenSSL's names of the suites for TLS 1.2; none: its own choice."""
    ciphers = openssl_names(api.tls_cipher_suites)
    only_newest = api.tls_min_version == "VersionTLS13" or (api.tls_cipher_suites and not ciphers)
    return ssl.TLSVersion.TLSv1_3 if only_newest else ssl.TLSVersion.TLSv1_2, ciphers
