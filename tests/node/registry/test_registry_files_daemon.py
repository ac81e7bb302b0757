"""A daemon with an /etc/containers of its own: misspelt rules, no policy, settings of other tools, servers that fall silent."""

from pathlib import Path

import grpc
import pytest
import support.daemon
from support.bad_registry import hang, run_bad_registry
from support.daemon import CRIO, running_daemon, wait_for
from support.image_node import pull, refused, remove
from support.images import file, make_image

from criollo.trust.policy import EXAMPLE

pytestmark = pytest.mark.node

IMAGE = make_image([[file("a", "b")]])
Code = grpc.StatusCode
LIMIT_S = 4  # a pull that goes well is never silent for so long, on slow machines neither
SECRET = "hunter2"


@pytest.fixture(scope="module")
def bad():
    with run_bad_registry() as registry:
        registry.add("team/app", "v1", IMAGE)
        yield registry


@pytest.fixture(scope="module")
def etc(tmp_path_factory, bad) -> Path:
    """What the daemon has at /etc/containers; no policy is there at first."""
    directory = tmp_path_factory.mktemp("etc")
    (directory / "registries.conf").write_text(bad.registries_conf())
    (directory / "registries.conf.d").mkdir()
    (directory / "storage.conf").write_text(
        '[storage]\ndriver = "overlay"\nimagestore = "/elsewhere"\n[storage.options.overlay]\nmountopt = "nodev,metacopy=on"\n'
    )
    return directory


@pytest.fixture(scope="module")
def daemon(tmp_path_factory, etc):
    """Without a HOME that has anything, without a configured policy, behind a proxy that we do not know how to use."""
    directory = tmp_path_factory.mktemp("files")
    wrapped = directory / "crio"
    wrapped.write_text(
        "#!/bin/sh\nunset CONTAINERS_REGISTRIES_CONF CONTAINERS_REGISTRIES_CONF_DIR\n"
        f"export HOME={directory} HTTPS_PROXY=socks5://u:{SECRET}@127.0.0.1:1\n"
        f'exec unshare -m sh -c \'mount --bind {etc} /etc/containers && exec {CRIO} "$@"\' crio "$@"\n'
    )
    wrapped.chmod(0o755)
    settings = {
        "crio.image.signature_policy": "",
        "crio.image.pull_progress_timeout": f"{LIMIT_S}s",
        "crio.image.auto_reload_registries": True,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(support.daemon, "CRIO", wrapped)
        with running_daemon(directory / "node", settings=settings) as running:
            yield running


@pytest.fixture
def policy(etc):
    (etc / "policy.json").write_text(EXAMPLE)
    yield etc / "policy.json"
    (etc / "policy.json").unlink()


def test_without_a_policy_the_daemon_runs_and_every_image_is_refused(daemon, bad):
    assert "no signature policy: every image is refused" in daemon.log()
    seen = len(bad.requests)
    with pytest.raises(grpc.RpcError) as caught:
        pull(daemon, bad.reference("team/app", "v1"))
    assert "SignatureValidationFailed" in caught.value.details()
    assert "or /etc/containers/policy.json" in caught.value.details()
    assert EXAMPLE in caught.value.details()
    assert len(bad.requests) == seen  # nobody was asked


def test_a_policy_that_is_written_counts_at_once_and_the_log_says_who_served(daemon, bad, policy):
    assert pull(daemon, bad.reference("team/app", "v1"))
    served = f"{bad.host}/team/app"
    assert f"manifest_from={served}" in daemon.log()
    assert f"layers_from={served}" in daemon.log()
    remove(daemon, bad.reference("team/app", "v1"))


@pytest.mark.parametrize("part", ["manifests/v1", "blobs/"])
def test_silence_ends_a_pull_whatever_is_waited_for(daemon, bad, policy, part):
    bad.break_at(f"/v2/team/app/{part}", hang(), times=1)
    told = refused(daemon, bad.reference("team/app", "v1"), Code.DEADLINE_EXCEEDED)
    assert f"no byte arrived for {LIMIT_S} s" in told
    assert f"Timed out on waiting up to {LIMIT_S}s" in told


def test_a_misspelt_key_of_a_rule_does_not_relax_and_is_named(daemon, bad, etc, policy):
    drop_in = etc / "registries.conf.d/50.conf"
    drop_in.write_text(f'[[registry]]\nlocation = "{bad.host}"\nblocked = true\n')
    wait_for(lambda: "blocks" in _told(daemon, bad.reference("team/app", "v1")))
    drop_in.write_text(f'[[registry]]\nlocation = "{bad.host}"\nbloked = true\n')
    wait_for(lambda: "the old rules stay" in daemon.log())
    assert f"/etc/containers/registries.conf.d/50.conf: [[registry]] {bad.host}: got 'bloked'" in daemon.log()
    assert "blocks" in _told(daemon, bad.reference("team/app", "v1"))
    drop_in.unlink()
    wait_for(lambda: not _told(daemon, bad.reference("team/app", "v1")))
    remove(daemon, bad.reference("team/app", "v1"))


def test_a_proxy_that_cannot_be_used_fails_the_request_and_is_named(daemon, policy):
    told = _told(daemon, "r.invalid/app:v1")
    assert "cannot use the proxy of HTTPS_PROXY: socks5:// is not supported" in told
    assert SECRET not in told + daemon.log()


def test_what_storage_conf_says_is_followed_or_named(daemon):
    assert "of=storage.imagestore" in daemon.log()
    assert "set imagestore in [crio]" in daemon.log()
    assert "overlay.mountopt=metacopy=on" in daemon.log()
    assert "storage.driver" not in daemon.log()


def _told(daemon, reference):
    """Why a pull is refused, or nothing."""
    try:
        pull(daemon, reference)
    except grpc.RpcError as error:
        return error.details()
    return ""
