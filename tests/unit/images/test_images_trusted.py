"""images.trusted: by which name a local image may run."""

import asyncio
import json
from pathlib import Path

import pytest
from support.image_store import add_image, image_store

from criollo.errors import Denied
from criollo.images.trusted import judge_local
from criollo.model.container import ImageSpec
from criollo.trust.judge import Judge
from criollo.trust.policies import Policies
from criollo.trust.policy import Policy

ID = "a" * 64
DIGEST = "sha256:" + "d" * 64
ACCEPT, REJECT = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]


def policy(default: object, **scopes: object) -> Policy:
    named = {scope.replace("_", "."): rules for scope, rules in scopes.items()}
    return Policy.parse(json.dumps({"default": default, "transports": {"docker": named}}).encode(), where="test")


@pytest.mark.parametrize(
    ("spec", "allowed"),
    [
        (ImageSpec(image="good.example/app:v1"), True),
        (ImageSpec(image="bad.example/app:v1"), False),
        (ImageSpec(image="BAD.example/app:v1"), False),  # another spelling is the same name
        (ImageSpec(image=f"bad.example/app@{DIGEST}"), False),
        (ImageSpec(image=f"bad.example/app:v1@{DIGEST}"), False),
        (ImageSpec(image=ID), True),  # one of its names may vouch
        (ImageSpec(image=ID, user_specified_image="bad.example/app:v1"), False),
        (ImageSpec(image=ID, user_specified_image="good.example/app:v1"), True),
        (ImageSpec(image=ID, user_specified_image="else.example/x:y"), True),  # no name of this image
    ],
)
def test_the_name_that_was_asked_for_decides(tmp_path: Path, spec: ImageSpec, allowed: bool) -> None:
    with image_store(tmp_path) as images:
        names = ["bad.example/app:v1", "good.example/app:v1"]
        image = add_image(images, ID, names=names, digests=[f"bad.example/app@{DIGEST}"])
        images.judge = Judge(Policies.of(policy(ACCEPT, bad_example=REJECT)), scratch=tmp_path / "trust")
        if allowed:
            asyncio.run(judge_local(images, image, spec))
        else:
            with pytest.raises(Denied, match=r"scope 'bad\.example'"):
                asyncio.run(judge_local(images, image, spec))


@pytest.mark.parametrize(("default", "allowed"), [(ACCEPT, True), (REJECT, False)])
def test_an_image_without_names_is_judged_by_the_default(tmp_path: Path, default: object, allowed: bool) -> None:
    with image_store(tmp_path) as images:
        image = add_image(images, ID)
        images.judge = Judge(Policies.of(policy(default, good_example=ACCEPT)), scratch=tmp_path / "trust")
        if allowed:
            asyncio.run(judge_local(images, image, ImageSpec(image=ID)))
        else:
            with pytest.raises(Denied):
                asyncio.run(judge_local(images, image, ImageSpec(image=ID)))
