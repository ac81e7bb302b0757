import errno

import pytest

from criollo.errors import CriolloError, Exhausted, HostFailed, Invalid, NotFound, ToolFailed, Unsupported, explain


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, Exhausted), (errno.EMFILE, Exhausted), (errno.ENOSYS, Unsupported), (errno.EACCES, HostFailed)],
)
def test_a_system_error_becomes_the_class_of_what_can_be_done(number: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="cannot mount rootfs of container c"), explain("mount rootfs of container c"):
        raise OSError(number, "said", "/the/path")


def test_a_full_disk_says_to_free_some() -> None:
    with pytest.raises(Exhausted, match="free some"), explain("write"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_field_is_named_with_what_was_got_and_expected() -> None:
    assert str(Invalid("config.metadata.name", "", "a name")) == "config.metadata.name: got '', expected a name"


def test_long_and_hostile_values_are_shortened_and_escaped() -> None:
    text = str(Invalid("field", "\x1b[2J\u202e" + "x" * 5000, "text"))
    assert len(text) < 300
    assert text.isprintable()


def test_a_tools_last_words_are_shown_escaped() -> None:
    text = str(ToolFailed("create container c", ["/usr/bin/crun"], 1, "no such\x07 file\n"))
    assert text == "create container c: /usr/bin/crun failed (exit status 1): no such\\x07 file"


@pytest.mark.parametrize("kind", [HostFailed, Exhausted])
def test_names_that_are_not_utf_8_do_not_get_into_a_text(kind: type[CriolloError]) -> None:
    assert str(kind("cannot remove a\udcffb")) == "cannot remove a\\udcffb"
    with pytest.raises(HostFailed) as caught, explain("remove \udcfe"):
        raise OSError(errno.EBUSY, "busy", "/rootfs/\udcff")
    assert str(caught.value) == "cannot remove \\udcfe: busy (/rootfs/\\udcff)"


def test_an_empty_name_is_seen() -> None:
    assert str(NotFound("image", "", "kpod images lists them")) == "image '' not found: kpod images lists them"
