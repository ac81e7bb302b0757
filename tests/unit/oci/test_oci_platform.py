from dataclasses import dataclass

import pytest

from criollo.errors import NotFound
from criollo.oci.platform import Platform, host_platform, select


@dataclass
class Entry:
    name: str
    platform: Platform | None


def entry(text):
    return Entry(text, Platform.normal(*text.split("/")))


@pytest.mark.parametrize(
    ("words", "normal"),
    [
        (("linux", "x86_64"), "linux/amd64"),
        (("Linux", "AMD64", "v1"), "linux/amd64"),
        (("linux", "amd64", "v3"), "linux/amd64/v3"),
        (("linux", "aarch64"), "linux/arm64"),
        (("linux", "arm64", "v8"), "linux/arm64"),
        (("linux", "arm64", "8"), "linux/arm64"),
        (("linux", "arm"), "linux/arm/v7"),
        (("linux", "armhf"), "linux/arm/v7"),
        (("linux", "armel"), "linux/arm/v6"),
        (("linux", "arm", "6"), "linux/arm/v6"),
        (("linux", "i686"), "linux/386"),
        (("macos", "arm64"), "darwin/arm64"),
        (("linux", "s390x"), "linux/s390x"),
        (("linux", ""), "linux"),
    ],
)
def test_platforms_have_one_spelling(words, normal):
    assert str(Platform.normal(*words)) == normal


@pytest.mark.parametrize(
    ("wanted", "offered", "best"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], "linux/amd64"),
        ("linux/amd64", ["linux/amd64/v3", "linux/amd64"], "linux/amd64"),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], "linux/amd64/v2"),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm64"], "linux/arm/v6"),
        ("linux/arm/v7", ["linux/arm/v6", "linux/arm/v7"], "linux/arm/v7"),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64/v8"], "linux/arm64/v8"),
        ("linux/amd64", ["unknown/unknown", "linux/amd64"], "linux/amd64"),
    ],
)
def test_the_best_entry_is_chosen(wanted, offered, best):
    assert select(Platform.normal(*wanted.split("/")), [entry(text) for text in offered]).name == best


def test_an_entry_without_platform_is_the_last_resort():
    plain = Entry("plain", None)
    amd64 = Platform.normal("linux", "amd64")
    assert select(amd64, [plain, entry("linux/amd64")]).name == "linux/amd64"
    assert select(amd64, [entry("linux/s390x"), plain]).name == "plain"


def test_no_match_lists_the_offer_without_attestations():
    with pytest.raises(NotFound, match=r"linux/amd64 not found: the index offers linux/arm64, windows/amd64") as caught:
        select(Platform.normal("linux", "amd64"), [entry("linux/arm64"), entry("unknown/unknown"), entry("windows/amd64")])
    assert "unknown" not in str(caught.value)


def test_this_host_has_a_platform():
    host = host_platform()
    assert host.os == "linux"
    assert Platform.normal(host.os, host.architecture, host.variant) == host
