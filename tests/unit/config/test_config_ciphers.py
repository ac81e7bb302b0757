"""Names of TLS cipher suites."""

import ssl

import pytest

from criollo.config.ciphers import ALWAYS_ON, SUITES, openssl_names
from criollo.errors import Invalid


@pytest.mark.parametrize("name", SUITES)
def test_openssl_has_each_suite(name: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(f"{SUITES[name]}:@SECLEVEL=0")
    assert SUITES[name] in [suite["name"] for suite in context.get_ciphers()]


def test_suites_keep_their_order_and_those_of_tls13_are_left_out() -> None:
    names = ["TLS_RSA_WITH_AES_128_GCM_SHA256", ALWAYS_ON[0], "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"]
    assert openssl_names(names) == ("AES128-GCM-SHA256", "ECDHE-RSA-CHACHA20-POLY1305")


@pytest.mark.parametrize(
    "name", ["", "ECDHE-RSA-AES128-GCM-SHA256", "TLS_RSA_WITH_RC4_128_SHA", "tls_rsa_with_aes_128_cbc_sha"]
)
def test_unknown_name_is_refused_by_name(name: str) -> None:
    with pytest.raises(Invalid) as refused:
        openssl_names([name], "crio.api.tls_cipher_suites")
    assert (refused.value.field, refused.value.got) == ("crio.api.tls_cipher_suites", name)
