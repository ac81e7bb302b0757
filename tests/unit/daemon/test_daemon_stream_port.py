"""TLS as the settings ask for it."""

import ssl

from criollo.config.settings import Api
from criollo.daemon.stream_port import tls_floor


def test_oldest_version_follows_its_setting() -> None:
    assert tls_floor(Api()) == (ssl.TLSVersion.TLSv1_2, ())
    assert tls_floor(Api(tls_min_version="VersionTLS13"))[0] is ssl.TLSVersion.TLSv1_3


def test_suites_of_tls_1_3_alone_leave_nothing_older() -> None:
    assert tls_floor(Api(tls_cipher_suites=("TLS_AES_128_GCM_SHA256",)))[0] is ssl.TLSVersion.TLSv1_3
