"""Credentials of a namespace: one file, one pull."""

import base64
import hashlib
import json
import os
from unittest import mock

import pytest

from criollo.errors import CriolloError, Invalid
from criollo.registry.endpoints import Endpoint
from criollo.registry.namespaced import forget, look, place, take

CONTENT = json.dumps({"auths": {"r.example": {"auth": base64.b64encode(b"alice:hunter2").decode()}}})


@pytest.fixture
def write(tmp_path):
    def put(content, image="r.example/team/app", namespace="shop"):
        path = tmp_path / f"{namespace}-{hashlib.sha256(image.encode()).hexdigest()}.json"
        path.write_text(content)
        return path

    return put


def left(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir())


def test_a_file_is_taken_and_gone(tmp_path, write):
    write(CONTENT)
    logins = take(tmp_path, "shop", "r.example/team/app:v1")
    (source,) = logins.sources(Endpoint(host="r.example", repository="team/app"))
    assert source.credentials.username == "alice"
    assert left(tmp_path) == []
    assert take(tmp_path, "shop", "r.example/team/app:v1") is None


def test_a_look_leaves_the_file(tmp_path, write):
    write(CONTENT)
    for _ in range(2):
        (source,) = look(tmp_path, "shop", "r.example/team/app:v1").sources(Endpoint(host="r.example", repository="team/app"))
        assert source.credentials.username == "alice"
    assert look(tmp_path, "other", "r.example/team/app:v1") is None
    assert len(left(tmp_path)) == 1


def test_short_names_are_those_of_docker_hub(tmp_path):
    digest = hashlib.sha256(b"docker.io/library/busybox").hexdigest()
    assert place(tmp_path, "shop", "busybox:1") == tmp_path / f"shop-{digest}.json"


@pytest.mark.parametrize("namespace", ["", "..", "a/b", "Shop", "other", "a" * 300, "shop\n"])
def test_other_namespaces_have_none(tmp_path, write, namespace):
    write(CONTENT)
    assert take(tmp_path, namespace, "r.example/team/app") is None
    assert len(left(tmp_path)) == 1


@pytest.mark.parametrize("content", ["hunter2", "[]", '{"auths":[]}', '{"auths":{},"auths":{}}'])
def test_a_malformed_file_is_refused_and_gone(tmp_path, write, content):
    write(content)
    with pytest.raises(Invalid) as caught:
        take(tmp_path, "shop", "r.example/team/app")
    assert "hunter2" not in str(caught.value)
    assert left(tmp_path) == []


def test_a_link_or_pipe_is_not_followed(tmp_path, write):
    secret = tmp_path / "secret"
    secret.write_text(CONTENT)
    for make in (lambda path: path.symlink_to(secret), lambda path: os.mkfifo(path)):
        path = write("")
        path.unlink()
        make(path)
        with pytest.raises(CriolloError):
            take(tmp_path, "shop", "r.example/team/app")
    assert left(tmp_path) == ["secret"]


def test_a_missing_directory_is_no_error(tmp_path):
    assert take(tmp_path / "absent", "shop", "r.example/app") is None
    assert not (tmp_path / "absent").exists()


def test_what_a_killed_daemon_had_in_use_is_forgotten(tmp_path, write):
    waiting = write(CONTENT)
    forget(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pathlib.Path.unlink", mock.Mock(side_effect=PermissionError))
        with pytest.raises(CriolloError):
            take(tmp_path, "shop", "r.example/team/app:v1")
    assert len(left(tmp_path)) == 1
    forget(tmp_path)
    assert left(tmp_path) == []
    assert not waiting.exists()
