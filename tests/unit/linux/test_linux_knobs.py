"""linux.knobs: values of CPUs in files that look like the kernel's."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.linux import knobs
from criollo.linux.knobs import Knob

cpu_sets = st.frozensets(st.integers(0, 300))


@given(cpus=cpu_sets, words=st.integers(1, 12))
def test_a_mask_is_read_as_it_is_written(cpus: frozenset[int], words: int) -> None:
    text = knobs.mask(cpus, words=words)
    assert knobs.parse_mask(text) == cpus
    assert all(len(group) == 8 for group in text.split(","))
    assert len(text.split(",")) >= words


@pytest.mark.parametrize(
    ("text", "cpus"), [("3\n", {0, 1}), ("00000001,80000000", {31, 32}), ("", set()), ("1,1", {0, 32}), ("ff", set(range(8)))]
)
def test_masks_are_read_as_kernels_and_people_write_them(text: str, cpus: set[int]) -> None:
    assert knobs.parse_mask(text) == cpus


def test_a_long_text_that_is_no_mask_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="mask"):
        knobs.parse_mask("f" * 1000 + "x")  # each way to split it would be tried


@given(text=st.text(max_size=40))
def test_any_text_is_a_set_or_refused(text: str) -> None:
    for parse in (knobs.parse_mask, knobs.parse_list, knobs.banned):
        try:
            assert all(cpu >= 0 for cpu in parse(text))
        except ValueError:
            continue


@given(text=st.text(st.sampled_from('ABC="0x1\n#')), value=st.sampled_from(["", "00000003"]))
def test_a_configuration_says_what_was_written(text: str, value: str) -> None:
    assert knobs.banned_text(knobs.with_banned(text, value)) == value


def test_a_line_that_was_added_goes_again() -> None:
    text = "# a comment\nIRQBALANCE_ARGS=--x\n"
    added = knobs.with_banned(text, "00000003")
    assert knobs.banned(added) == {0, 1}
    assert knobs.with_banned(knobs.with_banned(added, "00000001"), "") == text


def test_the_bits_of_a_mask_are_set_one_by_one_and_its_width_stays(tmp_path: Path) -> None:
    path = tmp_path / "proc/irq/default_smp_affinity"
    path.parent.mkdir(parents=True)
    path.write_text("00000000,0000000f\n")
    assert [knobs.read(Knob(str(path), cpu)) for cpu in (0, 3, 4)] == ["1", "1", "0"]
    knobs.write_all({Knob(str(path), 2): "0", Knob(str(path), 5): "1"})
    assert path.read_text() == "00000000,0000002b"


def test_the_bits_of_a_list_may_all_go(tmp_path: Path) -> None:
    path = tmp_path / "cpuset.cpus.exclusive"
    path.write_text("1-2\n")
    knobs.write_all({Knob(str(path), 7): "1"})
    assert path.read_text() == "1,2,7"
    knobs.write_all({Knob(str(path), cpu): "0" for cpu in (1, 2, 7)})
    assert path.read_text() == "\n"


def test_a_configuration_keeps_its_mode_and_is_written_through_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / "real", tmp_path / "irqbalance"
    path.write_text('A=1\nIRQBALANCE_BANNED_CPUS="00000000,00000001"\nB=2\n')
    path.chmod(0o640)
    link.symlink_to(path)
    knobs.write_all({Knob(str(link), 33): "1"})
    assert path.read_text() == 'A=1\nIRQBALANCE_BANNED_CPUS="00000002,00000001"\nB=2\n'
    assert (path.stat().st_mode & 0o777, link.is_symlink()) == (0o640, True)


def test_what_is_so_already_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "scaling_governor"
    path.write_text("powersave\n")
    path.chmod(0o444)
    before = path.stat().st_mtime_ns
    knobs.write_all({Knob(str(path)): "powersave"})
    assert path.stat().st_mtime_ns == before


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "proc/irq/default_smp_affinity"
    with pytest.raises(OSError, match="default_smp_affinity"):
        knobs.read(Knob(str(path), 0))
    path.parent.mkdir(parents=True)
    path.write_text("nonsense")
    with pytest.raises(OSError, match=r"no mask of CPUs.*default_smp_affinity"):
        knobs.read(Knob(str(path), 0))
