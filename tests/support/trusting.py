"""A registry with fresh images, signatures beside it, and our verdict on pulling and running one of them."""

import asyncio
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.image_store import image_store
from support.images import file, make_image, push
from support.registry import Registry as Served
from support.signing import write_json

from criollo.errors import CriolloError, Denied
from criollo.images.pull import pull_image
from criollo.images.trusted import judge_local
from criollo.model.container import ImageSpec
from criollo.registry.client import Registry
from criollo.registry.connections import Limits
from criollo.registry.hosts import Hosts
from criollo.trust.judge import Judge
from criollo.trust.policies import Policies
from criollo.workers.pool import Workers

REPOSITORY = "team/app"
PATIENT = Limits(connect_s=60, idle_s=60, document_s=60, rounds=2, backoff_s=0.01, longest_wait_s=1)


class Place:
    """A registry with images, and a lookaside beside it."""

    def __init__(self, registry: Served, root: Path) -> None:
        self.registry, self.root = registry, root
        self.lookaside = root / "lookaside"
        self.conf_d = root / "registries.d"
        self.conf_d.mkdir()
        self.numbers = itertools.count()
        self.write_places(lookaside=f"file://{self.lookaside}", attachments=True)

    def write_places(self, *, lookaside: str, attachments: bool) -> None:
        said = {"lookaside": lookaside, "use-sigstore-attachments": attachments}
        (self.conf_d / "default.yaml").write_text(json.dumps({"default-docker": said}))

    def image(self, repository: str = REPOSITORY, tag: str = "v1") -> tuple[str, str]:
        """A new image under a name of the repository; its digest and full name."""
        made = make_image([[file("a", f"{next(self.numbers)}")]])
        digest = push(self.registry, repository, tag, made)
        return digest, self.registry.reference(repository, tag)

    def verdict(self, rules: Path, reference: str, root: Path) -> CriolloError | None:
        """Pull the image into a fresh store and judge it as CreateContainer does; why not, if not."""

        async def inside(images: Any) -> None:
            async with images.workers:
                await images.layers.open()
                images.judge = Judge(Policies(rules), scratch=root / "trust")
                images.signatures_conf = self.conf_d
                images.hosts = Hosts.load(conf)
                images.registry = Registry(images.hosts, user_agent="t", limits=PATIENT, environ={})
                spec = ImageSpec(image=reference, user_specified_image=reference)
                try:
                    image_id = await pull_image(images, spec)
                    await judge_local(images, images.rows.get(image_id), spec)
                finally:
                    await images.registry.close()
                    await images.pulls.close(limit_s=0)

        root.mkdir()
        conf = root / "registries.conf"
        conf.write_text(self.registry.registries_conf())
        with image_store(root, workers=Workers()) as images:
            try:
                asyncio.run(inside(images))
            except CriolloError as error:
                assert images.rows.all() == []
                print(error)
                return error
            assert sorted(root.glob("trust/*")) == []
            return None

    def accepts(self, document: Mapping[str, Any], reference: str, root: Path) -> bool:
        """Whether a policy lets us pull and run an image; what else goes wrong is raised."""
        error = self.verdict(write_json(root / "policy.json", document), reference, root / "ours")
        if error is not None and not isinstance(error, Denied):
            raise error
        return error is None
