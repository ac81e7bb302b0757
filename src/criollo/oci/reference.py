"""References: the names people write for images, in full.

`busybox` is `docker.io/library/busybox:latest`. A `Reference` that exists is valid and complete: it has a domain, a path,
and a tag or a digest or both; with both, the digest says what is fetched. The domain is kept in lower case, so that no
second spelling of a host escapes a rule about it. The first word is a domain only if it has a dot, a colon or is
`localhost`; whatever else lists of search registries and aliases say is decided by `images.resolve`, with `is_short`.
"""

import re
from collections.abc import Iterator
from typing import Final, Self

import msgspec

from criollo.errors import Invalid
from criollo.oci.digest import Digest

DEFAULT_DOMAIN: Final = "docker.io"
DEFAULT_TAG: Final = "latest"
_OLD_DEFAULT_DOMAIN: Final = "index.docker.io"
_OFFICIAL: Final = "library/"
_LONGEST_NAME: Final = 255
_LONGEST_TEXT: Final = 1024

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN: Final = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:.]+\])(?::(?P<port>[0-9]{{1,5}}))?")
_PATH_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH: Final = re.compile(rf"{_PATH_PART}(?:/{_PATH_PART})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_BARE_HEX: Final = re.compile(r"[0-9a-f]{64}")


class Reference(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A complete image reference; make one with `parse`, never by hand from text of others."""

    domain: str
    path: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str, *, field: str = "image", default_domain: str = DEFAULT_DOMAIN) -> Self:
        """The reference that `text` means; `default_domain` is the registry of a short name.

        Raises:
            Invalid: `text` is no image reference; `field` names it in the message.
        Source: the reference grammar of the distribution project, and docker's normalisation of it.
        """
        if len(text) > _LONGEST_TEXT:
            raise Invalid(field, text, f"at most {_LONGEST_TEXT} characters")
        rest, at, digest_text = text.partition("@")
        digest = Digest.parse(digest_text, f"{field} {text!r}: digest") if at else None
        rest, tag = _split_tag(rest, text, field)
        domain, path = _split_domain(rest, default_domain)
        if not _is_domain(domain):
            raise Invalid(field, text, "a registry host such as example.com or localhost:5000 before the first slash")
        if not _PATH.fullmatch(path):
            raise Invalid(field, text, "a repository of lower-case letters, digits and . _ - between slashes")
        if _BARE_HEX.fullmatch(text):
            raise Invalid(field, text, "a name; 64 hex digits are an image id")
        if len(domain) + 1 + len(path) > _LONGEST_NAME:
            raise Invalid(field, text, f"a name of at most {_LONGEST_NAME} characters")
        return cls(domain=domain, path=path, tag=tag or ("" if digest else DEFAULT_TAG), digest=digest)

    @property
    def name(self) -> str:
        """Domain and path: `docker.io/library/busybox`."""
        return f"{self.domain}/{self.path}"

    @property
    def identifier(self) -> str:
        """What a registry is asked for: the digest if there is one, else the tag."""
        return self.digest or self.tag

    def with_digest(self, digest: Digest) -> Self:
        """The same repository by digest alone: `docker.io/library/busybox@sha256:…`."""
        return type(self)(domain=self.domain, path=self.path, digest=digest)

    def with_tag(self, tag: str) -> Self:
        """The same repository by tag alone."""
        if not _TAG.fullmatch(tag):
            raise Invalid("tag", tag, "1 to 128 letters, digits and . _ -")
        return type(self)(domain=self.domain, path=self.path, tag=tag)

    def scopes(self) -> Iterator[str]:
        """What rules may name for this image, the most specific first: itself, its repository, each namespace above, the host,
        and `*.` of each domain above that, for all its ports.

        Source: containers-policy.json(5), containers-registries.d(5).
        """
        yield str(self)
        name = self.name
        while name:
            yield name
            name = name.rpartition("/")[0]
        host = "" if self.domain.startswith("[") else self.domain.partition(":")[0]
        while "." in host:
            host = host.partition(".")[2]
            yield f"*.{host}"

    def __str__(self) -> str:
        return self.name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def is_short(text: str) -> bool:
    """Whether `text` names no registry, so that search lists and aliases have a say."""
    first, slash, _ = text.partition("/")
    return not (slash and _looks_like_domain(first))


def _split_tag(rest: str, text: str, field: str) -> tuple[str, str]:
    before, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        return rest, ""
    if not _TAG.fullmatch(tag):
        raise Invalid(field, text, "a tag of 1 to 128 letters, digits and . _ - after the colon")
    return before, tag


def _split_domain(rest: str, default_domain: str) -> tuple[str, str]:
    first, slash, path = rest.partition("/")
    domain = first.lower() if slash and _looks_like_domain(first) else default_domain
    path = path if slash and _looks_like_domain(first) else rest
    domain = DEFAULT_DOMAIN if domain == _OLD_DEFAULT_DOMAIN else domain
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _OFFICIAL + path
    return domain, path


def _looks_like_domain(first: str) -> bool:
    return "." in first or ":" in first or first.lower() == "localhost"


def _is_domain(domain: str) -> bool:
    found = _DOMAIN.fullmatch(domain)
    return found is not None and (found["port"] is None or 1 <= int(found["port"]) <= 65535)
