"""The routes for the care of the stores: check and repair them, see what the scrub found.

POST /check[?quick=1][&repair=1][&force=1][&age_s=86400]     a `model.care.Report`; takes as long as reading the store does
GET  /scrub                                                  a `model.care.Scrubbed`
"""

import asyncio
from collections.abc import Callable

from criollo.admin import parameters
from criollo.admin.parameters import as_json
from criollo.aio.http_server import Reply, Request, Route
from criollo.errors import Invalid
from criollo.images.check import Scope, check_stores
from criollo.images.context import Images
from criollo.images.repair import OLD_S, repair_stores
from criollo.model.care import Scrubbed

_MAX_AGE_S = 10 * 365 * 86400


def care_routes(images: Images, scope: Callable[[], Scope], scrubbed: Callable[[], Scrubbed]) -> dict[tuple[str, str], Route]:
    """`scope` says what is looked at beside images, at the time of the check. One check at a time: others wait."""
    busy = asyncio.Lock()

    async def check(request: Request) -> Reply:
        quick, repair, force = (parameters.is_set(request, key) for key in ("quick", "repair", "force"))
        age_s = _age(parameters.one(request, "age_s"))
        async with busy:
            report = await check_stores(images, quick=quick, scope=scope())
            if repair:
                await repair_stores(images, report, force=force, age_s=age_s)
        return as_json(report)

    async def scrub(request: Request) -> Reply:
        return as_json(scrubbed())

    return {("POST", "/check"): check, ("GET", "/scrub"): scrub}


def _age(text: str) -> float:
    if not text:
        return OLD_S
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or int(text) > _MAX_AGE_S:
        raise Invalid("age_s", text, f"seconds, 0 to {_MAX_AGE_S}")
    return float(text)
