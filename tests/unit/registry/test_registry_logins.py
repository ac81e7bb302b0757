"""Where credentials come from: order of files and programs, real programs, what is never shown, one run for many blobs."""

import asyncio
import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.aio import threads
from criollo.errors import Invalid
from criollo.registry.auth_files import parse
from criollo.registry.endpoints import Endpoint
from criollo.registry.lifeline import Aborted, Lifeline
from criollo.registry.logins import Logins
from criollo.registry.registries_conf import AUTH_FILES

HERE = Endpoint(host="r.example", repository="team/app")
HUB = Endpoint(host="docker.io", repository="library/app")


def auth(text):
    return {"auth": base64.b64encode(text.encode()).decode()}


@pytest.fixture
def node(tmp_path):
    """Auth files and programs; each program notes what it is asked."""

    class Node:
        paths, environ = [], {"PATH": f"{tmp_path}:/usr/bin:/bin", "ASKED": str(tmp_path / "asked")}

        def file(self, **content):
            self.paths.append(tmp_path / f"auth{len(self.paths)}.json")
            self.paths[-1].write_text(json.dumps(content))

        def program(self, name, script):
            path = tmp_path / f"docker-credential-{name}"
            path.write_text(f'#!/bin/sh\nread server\necho "{name} $1 $server" >> "$ASKED"\n{script}\n')
            path.chmod(0o755)

        @property
        def asked(self):
            path = tmp_path / "asked"
            return path.read_text().splitlines() if path.exists() else []

        def logins(self, *programs):
            return Logins(self.paths, programs=programs or (AUTH_FILES,), environ=self.environ)

    Node.paths = []
    return Node()


def find(logins, *endpoints):
    """What is found for each endpoint, as `user:password` or `token`."""

    async def main():
        with Lifeline(asyncio.get_running_loop()) as lifeline:
            found = [await threads.transfers(logins.find, each, lifeline) for each in endpoints]
        return [each and (f"{each.username}:{each.password}" if each.username else each.identity_token) for each in found]

    try:
        return asyncio.run(main())
    finally:
        threads.close()


def told(caplog):
    """All that was logged, with its fields."""
    return " ".join(str({name: str(value) for name, value in vars(record).items()}) for record in caplog.records)


def says(user, secret):
    return f"""echo '{{"ServerURL":"x","Username":"{user}","Secret":"{secret}"}}'"""


def test_a_program_for_the_host_goes_before_the_entries_of_its_file(node):
    node.program("one", says("bob", "hunter2"))
    node.file(auths={"r.example": auth("alice:a")}, credHelpers={"r.example": "one"})
    assert find(node.logins(), HERE) == ["bob:hunter2"]
    assert node.asked == ["one get r.example"]


def test_a_store_is_asked_for_what_the_file_has_not(node):
    node.program("store", says("bob", "hunter2"))
    node.file(auths={"r.example": auth("alice:a"), "s.example": {}}, credsStore="store")
    other = Endpoint(host="s.example", repository="x")
    assert find(node.logins(), HERE, other) == ["alice:a", "bob:hunter2"]
    assert node.asked == ["store get s.example"]


def test_docker_hub_has_its_old_name_in_stores(node):
    node.program("store", says("bob", "x"))
    node.file(credsStore="store")
    find(node.logins(), HUB)
    assert node.asked == ["store get https://index.docker.io/v1/"]


def test_the_list_of_registries_conf_orders_programs_and_files(node):
    node.program("one", "echo credentials not found in native keychain; exit 1")
    node.program("two", says("two", "x"))
    node.file(auths={"r.example": auth("alice:a")})
    assert find(node.logins("one", AUTH_FILES, "two"), HERE) == ["alice:a"]
    assert find(node.logins("one", "two", AUTH_FILES), HERE) == ["two:x"]
    assert find(node.logins("one"), HERE) == [None]


def test_an_identity_token_has_a_name_of_its_own(node):
    node.program("one", says("<token>", "idt"))
    assert find(node.logins("one"), HERE) == ["idt"]


@pytest.mark.parametrize(
    "script",
    [
        "echo hunter2 >&2; echo hunter2; exit 3",
        "echo hunter2",
        "echo '[]'",
        "echo '{\"Username\":7}'",
        "exit 0",
        "kill -9 $$",
        "head -c 3000000 /dev/zero",
    ],
)
def test_a_broken_program_is_passed_over_and_its_words_are_not_repeated(node, script, caplog):
    node.program("one", script)
    node.file(auths={"r.example": auth("alice:a")})
    assert find(node.logins("one", AUTH_FILES), HERE) == ["alice:a"]
    assert "credential program failed" in told(caplog)
    assert "hunter2" not in told(caplog)


def test_an_absent_program_is_passed_over(node, caplog):
    assert find(node.logins("absent"), HERE) == [None]
    assert "docker-credential-absent" in told(caplog)


def test_a_program_runs_once_for_the_blobs_of_a_pull(node):
    node.program("one", says("bob", "x"))
    assert find(node.logins("one"), *[HERE] * 5) == ["bob:x"] * 5
    assert len(node.asked) == 1


def test_ending_a_transfer_ends_its_program(node):
    node.program("one", "sleep 600")
    logins = node.logins("one")

    def ends_aborted(lifeline):
        with pytest.raises(Aborted):
            logins.find(HERE, lifeline)

    async def main():
        with Lifeline(asyncio.get_running_loop()) as lifeline:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(threads.transfers(ends_aborted, lifeline))
                while not node.asked:
                    await asyncio.sleep(0.005)
                lifeline.abort()
                await task

    try:
        asyncio.run(main())
    finally:
        threads.close()


def test_a_given_file_stands_alone_and_runs_nothing(node):
    node.program("one", says("bob", "x"))
    node.file(auths={"r.example": auth("alice:a")})
    given = parse(b'{"credHelpers":{"r.example":"one"},"credsStore":"one"}', where="given")
    assert find(Logins(node.paths, given=given, environ=node.environ), HERE) == [None]
    assert node.asked == []


def test_sources_are_named_without_running_anything(node):
    node.program("one", says("bob", "hunter2"))
    node.file(auths={"r.example/team": auth("alice:hunter2")}, credHelpers={"r.example": "one"})
    found = list(node.logins().sources(HERE))
    assert [(each.program, each.where.partition(" of ")[0]) for each in found] == [
        ("one", "credHelpers"),
        ("", "auths[r.example/team]"),
    ]
    assert "hunter2" not in repr(found)
    assert node.asked == []


@pytest.mark.parametrize(
    "text",
    [
        '{"credHelpers":[]}',
        '{"credHelpers":{"a":7}}',
        '{"credHelpers":{"a":"../sh"}}',
        '{"credHelpers":{"a":"x y"}}',
        '{"credsStore":7}',
        '{"credsStore":"-x"}',
    ],
)
def test_a_malformed_program_name_refuses_the_file(text):
    with pytest.raises(Invalid, match="given"):
        parse(text.encode(), where="given")


def test_the_oldest_form_is_the_table_alone(node, tmp_path):
    old = tmp_path / ".dockercfg"
    old.write_text(json.dumps({"https://r.example/v1/": auth("old:x")}))
    node.paths.append(old)
    assert find(node.logins(), HERE) == ["old:x"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=8),
        lambda each: st.dictionaries(
            st.sampled_from(["auths", "credHelpers", "credsStore", "r.example", "auth"]), each, max_size=3
        ),
        max_leaves=8,
    )
)
def test_any_document_is_a_file_or_refused(value):
    try:
        list(parse(json.dumps(value).encode(), where="any").sources(HERE))
    except Invalid:
        return
