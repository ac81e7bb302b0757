"""registry.tags: lists of tags, page by page, from registries that may have no end."""

from collections.abc import Iterator

import pytest
from support.asking import ask, forget_schemes
from support.upload_registry import UploadRegistry, run_upload_registry

from criollo.errors import CriolloError, Invalid, NotFound
from criollo.oci.reference import Reference
from criollo.registry import tags
from criollo.registry.connections import Limits
from criollo.registry.hosts import Hosts
from criollo.registry.registries_conf import Rule


@pytest.fixture
def taking() -> Iterator[UploadRegistry]:
    with run_upload_registry() as running:
        yield running


def listed(taking: UploadRegistry) -> list[str]:
    hosts = Hosts([Rule(prefix=taking.host, location=taking.host, insecure=True)])
    ref = Reference.parse(f"{taking.host}/x:v1")
    return ask(hosts, lambda client: tags.list_tags(client, ref), limits=Limits(rounds=1, keep_s=0.01))


def test_all_pages_are_read_in_order(taking: UploadRegistry) -> None:
    taking.pages = [["a", "b"], ["c"], [], ["d"]]
    assert listed(taking) == ["a", "b", "c", "d"]


def test_the_next_page_is_read_though_the_scheme_was_forgotten(taking: UploadRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_schemes(monkeypatch)
    taking.pages = [["a"], ["b"], ["c"]]
    assert listed(taking) == ["a", "b", "c"]


def test_a_list_without_end_is_refused(taking: UploadRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "MAX_TAGS", 3)
    taking.pages = [["a", "b"]] * 9
    with pytest.raises(Invalid, match="list of tags"):
        listed(taking)
    assert len(taking.requests) == 2


@pytest.mark.parametrize("body", ["", "[]", '{"tags":5}', '{"tags":[1]}', "{"])
def test_what_is_no_list_is_refused(taking: UploadRegistry, body: str) -> None:
    taking.answers.append((200, {"body": body}))
    with pytest.raises(CriolloError, match="list of tags"):
        listed(taking)


def test_a_repository_without_tags_has_none_and_one_that_is_not_there_is_told(taking: UploadRegistry) -> None:
    taking.answers.append((200, {"body": '{"name":"x","tags":null}'}))
    assert listed(taking) == []
    taking.answers.append((404, {}))
    with pytest.raises(NotFound):
        listed(taking)


def test_the_next_page_may_not_lead_elsewhere(taking: UploadRegistry) -> None:
    taking.answers.append((200, {"body": '{"tags":[]}', "Link": '<http://other.example/x>; rel="next"'}))
    with pytest.raises(CriolloError, match=r"other\.example"):
        listed(taking)
