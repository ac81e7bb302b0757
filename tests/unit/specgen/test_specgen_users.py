"""Identity: who a container runs as, from requests and from files that may be hostile."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.model.container import ContainerSecurity
from criollo.specgen.users import (
    MAX_FILE_BYTES,
    MAX_ID,
    MAX_LINE_BYTES,
    ResolvedUser,
    group_with,
    parse_id,
    passwd_with,
    resolve,
)

PASSWD = b"root:x:0:0:root:/root:/bin/sh\nada:x:1001:2001::/home/ada:/bin/sh\n# note\nnobody:x:65534:65534:::\n1000:x:0:0::/:\n"
GROUP = b"root:x:0:\nteam:x:3001:ada,bob\ndocker:x:3002:ada\nadm:x:4:root\n"


def who(image_user: str = "", **fields: object) -> ResolvedUser:
    return resolve(ContainerSecurity(**fields), image_user, passwd=PASSWD, group=GROUP)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("image_user", "fields", "expected"),
    [
        ("", {}, (0, 0, (0, 4), "/root")),
        ("ada", {}, (1001, 2001, (2001, 3001, 3002), "/home/ada")),
        ("1001", {}, (1001, 2001, (2001, 3001, 3002), "/home/ada")),
        ("ada:team", {}, (1001, 3001, (3001,), "/home/ada")),
        ("ada:77", {}, (1001, 77, (77,), "/home/ada")),
        ("4242", {}, (4242, 0, (0,), "/")),
        ("4242:team", {}, (4242, 3001, (3001,), "/")),
        ("1000", {}, (1000, 0, (0,), "/")),
        ("nobody", {}, (65534, 65534, (65534,), "/")),
        ("ada", {"run_as_user": 0}, (0, 0, (0, 4), "/root")),
        ("0:team", {"run_as_user": 1001}, (1001, 2001, (2001, 3001, 3002), "/home/ada")),
        ("", {"run_as_username": "ada", "run_as_group": 9}, (1001, 9, (9, 3001, 3002), "/home/ada")),
        ("", {"run_as_user": 4242, "supplemental_groups": (5, 6, 5)}, (4242, 0, (0, 5, 6), "/")),
        ("ada", {"supplemental_groups": (5,), "supplemental_groups_strict": True}, (1001, 2001, (2001, 5), "/home/ada")),
    ],
)
def test_user_group_and_groups(image_user: str, fields: dict[str, object], expected: tuple[object, ...]) -> None:
    found = who(image_user, **fields)
    assert (found.uid, found.gid, found.groups, found.home) == expected


@pytest.mark.parametrize(
    "image_user",
    ["4294967296", "2147483648", "-1", "+1", "9" * 36, "١٠", "ada:4294967296", ":team", "ada:", "a:b:c", "ghost", "ada:ghost",
     "1_0", " 1", "0x0", "ada\n", "a\0b", "²", "\udcff"],
)  # fmt: skip
def test_bad_image_users_are_refused(image_user: str) -> None:
    with pytest.raises(Invalid):
        who(image_user)


@pytest.mark.parametrize(
    "fields",
    [
        {"run_as_group": 5},
        {"run_as_user": -1},
        {"run_as_user": MAX_ID + 1},
        {"run_as_user": 1, "run_as_username": "ada"},
        {"run_as_username": "1001"},
        {"run_as_username": "ghost"},
        {"run_as_user": 1, "run_as_group": 1 << 32},
        {"supplemental_groups": (-5,)},
    ],
)
def test_bad_requests_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        who("", **fields)


def test_digits_never_name_an_entry() -> None:
    assert resolve(ContainerSecurity(), "1000", passwd=PASSWD, group=None).uid == 1000


def test_name_with_a_broken_number_is_an_error_not_root() -> None:
    with pytest.raises(Invalid, match="4294967296"):
        resolve(ContainerSecurity(), "eve", passwd=b"eve:x:4294967296:0::/:\n", group=None)


def test_name_needs_a_passwd_file() -> None:
    with pytest.raises(Invalid, match="/etc/passwd"):
        resolve(ContainerSecurity(run_as_username="ada"), "", passwd=None, group=None)


def test_first_line_of_a_user_counts() -> None:
    twice = b"ada:x:1:1::/a:\nada:x:0:0::/b:\n"
    assert resolve(ContainerSecurity(), "ada", passwd=twice, group=None).uid == 1


def test_long_lines_and_files_are_refused_by_name() -> None:
    with pytest.raises(Invalid, match="/etc/passwd of the image"):
        resolve(ContainerSecurity(), "ada", passwd=b"x" * (MAX_LINE_BYTES + 1), group=None)
    with pytest.raises(Invalid, match=str(MAX_FILE_BYTES)):
        resolve(ContainerSecurity(), "ada", passwd=b"\n" * (MAX_FILE_BYTES + 1), group=None)


def test_unknown_user_gets_one_line() -> None:
    assert passwd_with(b"root:x:0:0::/root:", uid=1002, gid=7, home="/work") == (
        b"root:x:0:0::/root:\n1002:x:1002:7:1002 user:/work:/sbin/nologin\n"
    )


def test_known_user_and_group_change_nothing() -> None:
    assert passwd_with(PASSWD, uid=1001, gid=7, home="/") is PASSWD
    assert group_with(GROUP, gid=3001) is GROUP
    assert group_with(GROUP, gid=9) == GROUP + b"9:x:9:\n"


@pytest.mark.parametrize("home", ["/a\nroot2:x:0:0::/:", "/a\r", "/a\0", "/a:b", "/a\u2028b", "/\udc80"])
def test_home_that_breaks_the_line_is_refused(home: str) -> None:
    with pytest.raises(Invalid):
        passwd_with(b"", uid=5, gid=5, home=home)


def test_backslash_n_as_two_characters_is_harmless() -> None:
    assert passwd_with(b"", uid=5, gid=5, home="/a\\n").count(b"\n") == 1


@given(st.text(max_size=40))
def test_parse_id_gives_an_id_a_name_or_an_error(text: str) -> None:
    try:
        found = parse_id(text, "user")
    except Invalid:
        return
    assert found is None or (0 <= found <= MAX_ID and text.isascii() and text.isdecimal())


@given(st.integers())
def test_every_number_in_range_is_itself(number: int) -> None:
    if 0 <= number <= MAX_ID:
        assert parse_id(str(number), "user") == number
    else:
        with pytest.raises(Invalid):
            parse_id(str(number), "user")


@given(st.text(alphabet="ab0:,1\n", max_size=12), st.binary(max_size=80), st.binary(max_size=80))
def test_any_bytes_give_a_user_or_one_error(image_user: str, passwd: bytes, group: bytes) -> None:
    try:
        found = resolve(ContainerSecurity(), image_user, passwd=passwd, group=group)
    except Invalid:
        return
    assert found.groups[0] == found.gid
    assert all(0 <= number <= MAX_ID for number in (found.uid, *found.groups))


@given(
    st.lists(st.sampled_from([b"ada:x:1:2::/h:\n", b":::\n", b"ada:x:9\n", b"a", b"\n", b"\xff:x:0:0\n", b"ada:x:-1:0::\n"]))
)
def test_shuffled_lines_never_make_a_name_root(lines: list[bytes]) -> None:
    with contextlib.suppress(Invalid):
        assert resolve(ContainerSecurity(), "ada", passwd=b"".join(lines), group=None).uid == 1
