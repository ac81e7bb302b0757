"""Keys that change while the daemon runs."""

from criollo.config.places import find_setting
from criollo.engine.reloading import GROUPS, group_of


def test_keys_are_those_of_the_configuration() -> None:
    assert [key for key in GROUPS if find_setting(tuple(key.split(".")[1:])) is None] == []


def test_all_that_crio_reloads_is_reloaded() -> None:
    crio = (  # pkg/config/reload.go of CRI-O 1.35
        *("crio.runtime.log_level", "crio.runtime.log_filter", "crio.image.pause_image", "crio.image.pause_image_auth_file"),
        *("crio.image.pause_command", "crio.image.pinned_images", "crio.runtime.decryption_keys_path"),
        *("crio.runtime.seccomp_profile", "crio.runtime.apparmor_profile", "crio.runtime.blockio_config_file"),
        *("crio.runtime.rdt_config_file", "crio.runtime.default_runtime", "crio.runtime.cdi_spec_dirs"),
        "crio.runtime.runtimes.kata.runtime_path",
    )
    assert [key for key in crio if not group_of(key)] == []


def test_others_wait_for_a_restart() -> None:
    assert [group_of(key) for key in ("crio.root", "crio.runtime.pids_limit", "crio.runtime.cgroup_manager")] == ["", "", ""]
