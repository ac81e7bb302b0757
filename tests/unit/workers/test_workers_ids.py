from hypothesis import given
from hypothesis import strategies as st

from criollo.workers.ids import NOBODY, Ids

MAPPED = Ids(uids=((0, 100_000, 1000), (5000, 7, 1)), gids=((0, 200_000, 1000),))


def test_without_mappings_ids_are_those_of_the_host() -> None:
    plain = Ids()
    assert (plain.inside_uid(7), plain.host_gid(8), plain.root, plain.are_mapped) == (7, 8, (0, 0), False)


def test_ids_outside_the_mappings_are_nobody_inside_and_root_on_the_host() -> None:
    assert (MAPPED.inside_uid(7), MAPPED.inside_uid(8), MAPPED.inside_gid(0)) == (5000, NOBODY, NOBODY)
    assert (MAPPED.host_uid(5000), MAPPED.host_uid(1000), MAPPED.host_gid(70_000)) == (7, 100_000, 200_000)
    assert MAPPED.root == (100_000, 200_000)


@given(st.integers(0, 999))
def test_a_mapped_id_comes_back(inside: int) -> None:
    assert MAPPED.inside_gid(MAPPED.host_gid(inside)) == inside
