"""The tags of a repository, page by page.

Source: OCI distribution-spec v1.1, section Listing Tags.
"""

import re
from typing import Final

from criollo.errors import Invalid
from criollo.oci import document
from criollo.oci.reference import Reference
from criollo.registry.client import Registry, Shown, question_for
from criollo.registry.endpoints import Endpoint
from criollo.registry.exchange import Exchange
from criollo.registry.redirects import next_hop

MAX_TAGS: Final = 100_000
_MAX_PAGES: Final = 1000
_MAX_PAGE_BYTES: Final = 4 << 20
_NEXT: Final = re.compile(r"<([^<>]{1,4000})>\s*;[^,]*\brel=\"?next\"?")


async def list_tags(registry: Registry, ref: Reference, shown: Shown = None) -> list[str]:
    """All tags of `ref`'s repository, as its registry lists them; mirrors are not asked.

    Raises:
        NotFound, Unauthenticated, Forbidden, Unavailable: the registry says so, or does not answer.
        Invalid: the answer is no list of tags, or has no end.
    """

    def talk(exchange: Exchange, endpoint: Endpoint) -> list[str]:
        tags: list[str] = []
        url = ""
        for _ in range(_MAX_PAGES):
            answer = exchange.ask(question_for(ref, endpoint, shown, path="tags/list", url=url))
            more = _NEXT.search(answer.headers.get("Link", "")[:8000])
            raw = exchange.read(answer, _MAX_PAGE_BYTES, what="list of tags", host=endpoint.api_host)
            tags += _parse(raw)
            if more is None or len(tags) > MAX_TAGS:
                break
            url = next_hop(str(answer.url), more[1], may_be_plain=lambda there: registry.hosts.is_insecure(there.netloc))
        if more is not None:
            raise Invalid("list of tags", f"over {len(tags)} tags of {ref.name}", f"at most {MAX_TAGS}")
        return tags

    return await registry.converse(ref, talk)


def _parse(raw: bytes) -> list[str]:
    found = document.parse_object(raw, what="list of tags", limit_bytes=_MAX_PAGE_BYTES).get("tags")
    if found is None:
        return []
    return document.convert(found, list[str], what="list of tags")
