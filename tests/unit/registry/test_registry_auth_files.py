import base64
import json
from pathlib import Path

import pytest

from criollo.errors import Invalid
from criollo.registry.auth_files import find_auth_files, lookup
from criollo.registry.endpoints import Endpoint


def auth(text):
    return {"auth": base64.b64encode(text.encode()).decode()}


@pytest.fixture
def found(tmp_path):
    def look(auths, host="r.example", repository="team/app"):
        path = tmp_path / "auth.json"
        path.write_text(json.dumps({"auths": auths}))
        credentials = lookup([tmp_path / "absent.json", path], Endpoint(host=host, repository=repository))
        return credentials and f"{credentials.username}:{credentials.password}"

    return look


def test_the_most_specific_key_wins(found):
    auths = {
        "r.example": auth("h:1"),
        "r.example/team": auth("t:2"),
        "r.example/team/app": auth("a:3"),
        "r.example/te": auth("x:4"),
    }
    assert found(auths) == "a:3"
    assert found(auths, repository="team/other") == "t:2"
    assert found(auths, repository="teams/app") == "h:1"
    assert found(auths, host="s.example") is None
    assert found(auths, host="r.example:5000") is None


@pytest.mark.parametrize("key", ["https://r.example", "https://r.example/v1/", "http://r.example/v2/", "r.example/"])
def test_old_docker_keys_name_their_host(found, key):
    assert found({key: auth("h:1")}) == "h:1"


@pytest.mark.parametrize("key", ["docker.io", "https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io"])
@pytest.mark.parametrize("host", ["docker.io", "registry-1.docker.io"])
def test_docker_hub_has_several_names(found, key, host):
    assert found({key: auth("h:1")}, host, "library/busybox") == "h:1"
    assert found({f"{host}/library": auth("h:1"), key: auth("i:2")}, host, "library/busybox") == "h:1"


@pytest.mark.parametrize("key", ["r.example", "r.example/v1/", "https://r.example/v1/", "http://r.example"])
def test_the_oldest_file_has_hosts_alone(tmp_path, key):
    path = tmp_path / ".dockercfg"
    path.write_text(json.dumps({key: auth("h:1")}))
    assert lookup([path], Endpoint(host="r.example", repository="team/app")).username == "h"
    assert lookup([path], Endpoint(host="s.example", repository="team/app")) is None


def test_keys_count_in_any_case(tmp_path):
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"Auths": {"r.example": {"AUTH": auth("h:1")["auth"], "IdentityToken": "t"}}}))
    found = lookup([path], Endpoint(host="r.example", repository="team/app"))
    assert (found.username, found.identity_token) == ("h", "t")


def test_an_entry_that_is_no_user_and_password_is_passed_over_without_its_secret(found, caplog):
    assert found({"r.example/team": auth("secret"), "r.example": auth("h:1")}) is None
    assert "passed over" in caplog.text
    assert "secret" not in caplog.text + str(caplog.records)


def test_plain_fields_and_tokens_count_too(found, tmp_path):
    assert found({"r.example": {"username": "u", "password": "p", "auth": None}}) == "u:p"
    path = tmp_path / "t.json"
    path.write_text('{"auths":{"r.example":{"identitytoken":"idt"}}}')
    assert lookup([path], Endpoint(host="r.example", repository="x")).identity_token == "idt"


@pytest.mark.parametrize("entry", [{}, {"auth": ""}, {"username": ""}])
def test_an_empty_entry_gives_nothing(found, entry):
    assert found({"r.example": entry}) is None


@pytest.mark.parametrize("entry", [{"auth": "!!secret!!"}, {"auth": 7}, [], "secret", {"auth": "YTpi", "Auth": "secret"}])
def test_a_malformed_entry_is_named_without_its_secret(found, entry):
    with pytest.raises(Invalid, match=r"auth\.json") as caught:
        found({"r.example": entry})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", '{"auths":[]}', '{"auths":{},"auths":{}}', "secret"])
def test_a_malformed_file_is_refused(tmp_path, text):
    path = tmp_path / "auth.json"
    path.write_text(text)
    with pytest.raises(Invalid):
        lookup([path], Endpoint(host="a", repository="b"))


def test_files_are_searched_in_the_known_places():
    assert find_auth_files({"REGISTRY_AUTH_FILE": "/a"}, 0) == [Path("/a")]
    assert find_auth_files({"HOME": "/root"}, 0) == [
        Path("/run/containers/0/auth.json"),
        Path("/root/.config/containers/auth.json"),
        Path("/root/.docker/config.json"),
        Path("/root/.dockercfg"),
    ]
