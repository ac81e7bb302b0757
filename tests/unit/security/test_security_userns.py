"""Mappings that annotations ask for: what is read, what is chosen, and that no id is given twice."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import CriolloError, Exhausted, Invalid, Unsupported
from criollo.model.pod import IdMapping, NamespaceMode, Namespaces, PodSecurity, UserNamespace
from criollo.security.userns import LAST_ID, NodeIds, configured, decide, parse, parse_mappings, parse_ranges

NODE = NodeIds(uid_ranges=((100_000, 300_000),), gid_ranges=((200_000, 300_000),))


def mapping(text: str) -> tuple[IdMapping, ...]:
    return parse_mappings(text, "x")


def chosen(text: str | None, node: NodeIds = NODE, used: tuple[UserNamespace, ...] = (), **security: object) -> UserNamespace:
    found = decide(text, PodSecurity(**security), node, used)  # type: ignore[arg-type]  # a table of fields
    assert found is not None
    assert found.mode is NamespaceMode.POD
    return found


def test_nothing_asked_is_nothing() -> None:
    assert decide(None, PodSecurity(), NODE, ()) is None


def test_auto_takes_the_first_free_piece() -> None:
    first = chosen("auto")
    assert (first.uids, first.gids) == (mapping("0:100000:65536"), mapping("0:200000:65536"))
    second = chosen("auto:size=1000", used=(first,))
    assert (second.uids, second.gids) == (mapping("0:165536:1000"), mapping("0:265536:1000"))


def test_keep_id_shows_the_user_as_it_is_on_the_host() -> None:
    found = chosen("auto:keep-id=true;size=2000", run_as_user=1234, run_as_group=77, supplemental_groups=(88, 77))
    assert found.uids == mapping("0:100000:1234,1234:1234:1,1235:101234:765")
    assert found.gids == mapping("0:200000:77,77:77:1,78:200077:10,88:88:1,89:200087:1911")


def test_map_to_root_shows_the_user_as_root() -> None:
    found = chosen("auto:map-to-root=true;size=10", run_as_user=1234, run_as_group=1235)
    assert (found.uids, found.gids) == (mapping("0:1234:1,1:100000:9"), mapping("0:1235:1,1:200000:9"))


def test_given_mappings_stand_and_their_ids_are_not_given_out() -> None:
    found = chosen("auto:size=10;uidmapping=3:100002:2", run_as_user=0)
    assert found.uids == mapping("0:100004:3,3:100002:2,5:100007:5")


def test_private_has_what_is_given_or_configured() -> None:
    assert chosen("private:uidmapping=0:5000:10", run_as_user=0).gids == mapping("0:5000:10")
    node = configured("0:7000:10", "0:8000:10", -1, -1)
    assert chosen("private", node) == chosen(None, node)
    assert chosen(None, node).gids == mapping("0:8000:10")


def test_what_the_client_maps_itself_stays() -> None:
    own = UserNamespace(mode=NamespaceMode.POD, uids=mapping("0:65536:65536"), gids=mapping("0:65536:65536"))
    spaces = Namespaces(user=own)
    assert decide("auto", PodSecurity(namespaces=spaces), NODE, ()) is own
    with pytest.raises(Invalid, match="minimum_mappable_uid"):
        decide(None, PodSecurity(namespaces=spaces, run_as_user=5), NodeIds(least_uid=70000), ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "auto or private"),
        ("host", "auto or private"),
        ("auto:keep-id=true;map-to-root=true", "not both"),
        ("auto:keep-id=yes", "true or false"),
        ("auto:size=0", "size"),
        ("auto:size=-1", "size"),
        ("auto:size=٣", "size"),
        ("auto:size=4294967295", "size"),
        ("auto:size=1;size=2", "once"),
        ("auto:colour=red", "options of auto"),
        ("auto:size", "options of auto"),
        ("private:size=3", "options of private"),
        ("auto:uidmapping=0:1", "inside:host:length"),
        ("auto:uidmapping=0:1:0", "inside:host:length"),
        ("auto:uidmapping=0:4294967295:1", "inside:host:length"),
        ("auto:uidmapping=0:10:5,4:100:5", "every id inside once"),
        ("auto:uidmapping=0:10:5,9:14:5", "every id on the host once"),
    ],
)
def test_other_text_is_refused_with_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        chosen(text, run_as_user=0)


@pytest.mark.parametrize(
    ("text", "node", "security", "words"),
    [
        ("auto:uidmapping=0:5000:1", NODE, {}, "run_as_user"),
        ("auto:uidmapping=0:5000:1", NODE, {"run_as_user": 7}, "minimum_mappable_uid is not set"),
        ("auto:uidmapping=0:5000:1", NODE._replace(least_uid=8), {"run_as_user": 7}, "minimum_mappable_uid is 8"),
        ("auto:uidmapping=0:5000:1", NODE._replace(least_uid=6000), {"run_as_user": 0}, "from 6000 on"),
        ("auto:uidmapping=0:0:1", NODE, {"run_as_user": 0}, "host's root"),
        ("private:gidmapping=0:0:1", NODE, {"run_as_user": 0}, "host's root"),
        ("auto:map-to-root=true", NODE, {"run_as_user": 0}, "host's root"),
        ("auto:keep-id=true", NODE, {"run_as_user": 0}, "host's root"),
        ("auto:keep-id=true", NODE._replace(least_uid=5000), {"run_as_user": 100}, "from 5000 on"),
    ],
)
def test_ids_that_the_node_keeps_for_itself_are_refused(
    text: str, node: NodeIds, security: dict[str, object], words: str
) -> None:
    with pytest.raises(Invalid, match=words):
        chosen(text, node, **security)


def test_node_without_ranges_and_one_that_is_full_are_told() -> None:
    with pytest.raises(Unsupported, match="/etc/subuid has no range for the user containers"):
        chosen("auto", NodeIds())
    with pytest.raises(Exhausted, match="300001 user ids"):
        chosen("auto:size=300001")
    with pytest.raises(Unsupported, match="no mappings"):
        chosen("private", NodeIds())


def test_one_configured_side_is_not_enough() -> None:
    with pytest.raises(Invalid, match="gid_mappings"):
        configured("0:7000:10", "", -1, -1)


def test_ranges_of_the_owner_are_read() -> None:
    content = b"# x\nalice:1:2\ncontainers:100000:65536\r\ncontainers:0:5\ncontainers:x:5\ncontainers:9:0\n"
    content += b"containers:7:1:2\nCONTAINERS:1:1\ncontainers:200000:1"
    assert parse_ranges(content) == ((100_000, 65_536), (200_000, 1))


@given(st.binary(max_size=200))
def test_any_file_of_ranges_is_read(content: bytes) -> None:
    assert all(first > 0 and first + count - 1 <= LAST_ID for first, count in parse_ranges(content))


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for wish in (text, f"auto:{text}", f"private:uidmapping={text}"):
        try:
            parse(wish)
        except Invalid:
            continue


pods = st.tuples(
    st.integers(1, 5000), st.sampled_from(["", ";keep-id=true", ";map-to-root=true"]), st.integers(1, 60_000), st.booleans()
)


@given(
    st.lists(pods, max_size=20), st.lists(st.tuples(st.integers(50_000, 60_000), st.integers(1, 3000)), min_size=1, max_size=4)
)
def test_pods_that_come_and_go_never_share_an_id_of_the_ranges(
    wishes: list[tuple[int, str, int, bool]], ranges: list[tuple[int, int]]
) -> None:
    node = NodeIds(uid_ranges=tuple(ranges), gid_ranges=tuple(ranges))
    living: list[UserNamespace] = []
    for size, how, user, leaves in wishes:
        if leaves and living:
            living.pop(0)
        try:
            made = chosen(f"auto:size={size}{how}", node, tuple(living), run_as_user=user, run_as_group=user)
        except CriolloError:
            continue
        living.append(made)
        inside = sorted((each.container_id, each.length) for each in made.uids)
        assert inside[0][0] == 0
        assert all(first + length <= second for (first, length), (second, _) in pairwise(inside))
    given_out = [
        number
        for each in living
        for one in each.uids
        if not (one.length == 1 and one.host_id in {wish[2] for wish in wishes})
        for number in range(one.host_id, one.host_id + one.length)
    ]
    assert len(given_out) == len(set(given_out))
