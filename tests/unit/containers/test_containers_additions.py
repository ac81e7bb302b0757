"""What a container gets beyond its request."""

import json
from pathlib import Path
from typing import Any

import pytest

from criollo.containers.additions import Additions, parse_umask, zone_file
from criollo.containers.rootfs import Ground
from criollo.containers.shape import Asked
from criollo.errors import Invalid, NotFound
from criollo.model.container import ContainerConfig, ImageSpec
from criollo.model.pod import PodConfig
from criollo.specgen.request import Defaults, ImageDefaults, PodView, SpecRequest
from criollo.specgen.users import ResolvedUser

WISHES = ("umask.crio.io", "cgroup2-mount-hierarchy-rw.crio.io", "disable-fips.crio.io")


def added(
    additions: Additions,
    tmp_path: Path,
    *,
    pod: dict[str, str] | None = None,
    allowed: tuple[str, ...] = WISHES,
    labels: dict[str, str] | None = None,
    **fields: Any,
) -> SpecRequest:
    config = ContainerConfig(**{"name": "main", "image": ImageSpec(image="i"), "command": ("/bin/sh",), **fields})
    settings = PodConfig(name="p", uid="u", namespace="n", annotations=pod or {}, labels=labels or {})
    request = SpecRequest(
        container_id="c",
        container_name="c",
        config=config,
        pod=PodView(id="p", config=settings),
        image=ImageDefaults(),
        user=ResolvedUser(),
        rootfs="/r",
        cgroups_path="/c",
        defaults=Defaults(allowed_annotations=allowed),
    )
    asked = Asked(config=config, pod=settings, allowed=allowed, handler="crun")
    return additions.to(request, asked, Ground(tmp_path, tmp_path))


def test_a_node_that_adds_nothing_changes_nothing(tmp_path: Path) -> None:
    request = added(Additions(), tmp_path)
    assert (request.default_mounts, request.umask, request.edits, request.hooks) == ((), None, None, None)


@pytest.mark.parametrize(("key", "allowed", "umask"), [
    ("umask.crio.io", WISHES, 0o77), ("io.kubernetes.cri-o.umask", WISHES, 0o77), ("umask.crio.io", (), None),
])  # fmt: skip
def test_a_umask_is_a_wish(tmp_path: Path, key: str, allowed: tuple[str, ...], umask: int | None) -> None:
    assert added(Additions(), tmp_path, pod={key: "077"}, allowed=allowed).umask == umask


def test_writable_cgroups_are_a_wish(tmp_path: Path) -> None:
    wish = {"cgroup2-mount-hierarchy-rw.crio.io": "true"}
    assert added(Additions(), tmp_path, pod=wish).writable_cgroups
    assert not added(Additions(), tmp_path, pod=wish, allowed=()).writable_cgroups
    assert not added(Additions(), tmp_path, pod={"cgroup2-mount-hierarchy-rw.crio.io": "yes"}).writable_cgroups


@pytest.mark.parametrize("text", ["", "8", "0o22", "-1", "1000", "٧"])
def test_what_is_no_umask_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="umask"):
        parse_umask(text)


def test_a_zone_is_a_file_of_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Europe").mkdir()
    (tmp_path / "Europe" / "Oslo").write_bytes(b"TZif2")
    monkeypatch.setattr("criollo.containers.additions.ZONES", str(tmp_path))
    assert zone_file("") == ""
    assert zone_file("Europe/Oslo") == str(tmp_path / "Europe/Oslo")
    (mount,) = added(Additions(timezone="Europe/Oslo"), tmp_path).default_mounts
    assert (mount.destination, mount.source, "ro" in mount.options) == ("/etc/localtime", str(tmp_path / "Europe/Oslo"), True)
    for wrong in ("Europe", "Nowhere/None", "../secret", "/etc/passwd", "Europe/../Europe/Oslo"):
        with pytest.raises(Invalid, match="invalid timezone"):
            zone_file(wrong)


def test_fips_is_hidden_with_label_and_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switch = tmp_path / "fips_switch"
    monkeypatch.setattr("criollo.containers.additions.FIPS", str(switch))
    fields: dict[str, Any] = {"pod": {"disable-fips.crio.io": "true"}, "labels": {"FIPS_DISABLE": "true"}}
    assert added(Additions(), tmp_path, **fields).default_mounts == ()
    switch.write_text("1\n")
    (mount,) = added(Additions(), tmp_path, **fields).default_mounts
    assert (mount.destination, Path(mount.source).read_text()) == (str(switch), "0\n")
    assert added(Additions(), tmp_path, **{**fields, "labels": {}}).default_mounts == ()
    assert added(Additions(), tmp_path, **fields, allowed=()).default_mounts == ()


def specs(tmp_path: Path) -> Additions:
    device = {"name": "0", "containerEdits": {"env": ["GPU=0"]}}
    (tmp_path / "v.json").write_text(json.dumps({"cdiVersion": "0.6.0", "kind": "v.com/gpu", "devices": [device]}))
    return Additions(cdi_dirs=(str(tmp_path),))


def test_cdi_devices_come_by_field_or_annotation_of_the_container(tmp_path: Path) -> None:
    additions = specs(tmp_path)
    for fields in ({"cdi_devices": ("v.com/gpu=0",)}, {"annotations": {"cdi.k8s.io/x": "v.com/gpu=0"}}):
        edits = added(additions, tmp_path, **fields).edits
        assert edits is not None
        assert edits.env == ("GPU=0",)
    with pytest.raises(NotFound, match=r"v\.com/gpu=1"):
        added(additions, tmp_path, cdi_devices=("v.com/gpu=1",))
    additions.close()


def test_a_pod_gets_no_device_by_its_own_annotation(tmp_path: Path) -> None:
    asked = {"cdi.k8s.io/x": "v.com/gpu=0"}
    assert added(specs(tmp_path), tmp_path, pod=asked, allowed=("cdi.k8s.io/",)).edits is None


def test_specs_may_be_looked_for_elsewhere(tmp_path: Path) -> None:
    additions = specs(tmp_path)
    added(additions, tmp_path, cdi_devices=("v.com/gpu=0",))
    additions.use_cdi_dirs(())
    with pytest.raises(NotFound):
        added(additions, tmp_path, cdi_devices=("v.com/gpu=0",))


def test_hooks_are_chosen_by_annotations_and_command(tmp_path: Path) -> None:
    when = {"annotations": {"^go$": "^yes$"}, "commands": ["/sh$"]}
    document = {"version": "1.0.0", "hook": {"path": "/bin/true"}, "when": when, "stages": ["poststart"]}
    (tmp_path / "h.json").write_text(json.dumps(document))
    additions = Additions(hooks_dirs=(str(tmp_path),))
    found = added(additions, tmp_path, pod={"go": "yes"}).hooks
    assert found is not None
    assert [each.path for each in found.poststart] == ["/bin/true"]
    assert added(additions, tmp_path, pod={"go": "no"}).hooks is None
    assert added(additions, tmp_path, pod={"go": "yes"}, command=("/bin/true",)).hooks is None
    additions.close()
