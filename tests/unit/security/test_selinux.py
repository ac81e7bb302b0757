"""Which labels pods and containers get: the table of the module, levels that nobody else has, and the policy's file."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Exhausted, Invalid
from criollo.linux.selinux import CATEGORIES, parse_label
from criollo.model.container import ContainerConfig, ContainerSecurity, ImageSpec
from criollo.model.ids import PodId
from criollo.model.pod import NamespaceMode, Namespaces, Pod, PodConfig, PodSecurity, PodState, SELinuxOptions
from criollo.security import selinux
from criollo.security.selinux import NO_LABELS, Contexts, Labeller, Labels, merged, parse_contexts, skips_relabel

POLICY = """
# of the reference policy
process = "system_u:system_r:container_t:s0"
file = "system_u:object_r:container_file_t:s0"
ro_file="system_u:object_r:container_ro_file_t:s0"
kvm_process = "system_u:system_r:container_kvm_t:s0"
"""
CONTEXTS = parse_contexts(POLICY)
HOST = NamespaceMode.NODE
OWN = Namespaces()


def labeller(taken: Iterable[str] = (), *, contexts: Contexts = CONTEXTS, host_network_unconfined: bool = True) -> Labeller:
    return Labeller(contexts, taken=lambda: taken, host_network_unconfined=host_network_unconfined)


def pod_config(options: SELinuxOptions | None = None, namespaces: Namespaces = OWN) -> PodConfig:
    security = PodSecurity(selinux=options, namespaces=namespaces)
    return PodConfig(name="pod", uid="1", namespace="n", security=security)


def pod(labels: Labels, config: PodConfig | None = None) -> Pod:
    return Pod(
        id=PodId("a" * 64),
        name="pod",
        config=config or pod_config(),
        handler="",
        state=PodState.READY,
        created_ns=0,
        process_label=labels.process,
        mount_label=labels.mount,
    )


def container(
    options: SELinuxOptions | None = None, namespaces: Namespaces = OWN, *, privileged: bool = False
) -> ContainerConfig:
    security = ContainerSecurity(selinux=options, namespaces=namespaces, privileged=privileged)
    return ContainerConfig(name="c", image=ImageSpec(image="i"), security=security)


PLAIN = Labels("system_u:system_r:container_t:s0:c1,c2", "system_u:object_r:container_file_t:s0:c1,c2")


def test_a_pod_gets_two_categories_of_its_own() -> None:
    labels = labeller().of_pod(pod_config())
    process, file = parse_label(labels.process), parse_label(labels.mount)
    assert process[:3] == ("system_u", "system_r", "container_t")
    assert file[:3] == ("system_u", "object_r", "container_file_t")
    assert process.level == file.level
    assert process.level.count("c") == 2


def test_no_two_pods_share_a_level() -> None:
    taken: list[str] = []
    ours = labeller(taken)
    for _ in range(300):
        taken.append(ours.of_pod(pod_config()).mount)
    assert len({parse_label(label).level for label in taken}) == 300


def test_levels_that_are_written_otherwise_are_taken_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selinux, "CATEGORIES", 3)
    taken = ["u:r:t:s0:c1,c0", "u:r:t:s0:c0,c2", "damaged", "u:r:t"]
    assert parse_label(labeller(taken).of_pod(pod_config()).mount).level == "s0:c1,c2"


def test_the_last_free_level_is_found_and_then_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selinux, "CATEGORIES", 4)
    taken: list[str] = []
    ours = labeller(taken)
    for _ in range(6):
        taken.append(ours.of_pod(pod_config()).mount)
    with pytest.raises(Exhausted, match="categories"):
        ours.of_pod(pod_config())


def test_a_request_gives_each_part_itself() -> None:
    asked = SELinuxOptions(user="staff_u", role="staff_r", type="my_t", level="s0:c5,c4")
    labels = labeller().of_pod(pod_config(asked))
    assert labels == ("staff_u:staff_r:my_t:s0:c4,c5", "staff_u:object_r:container_file_t:s0:c4,c5")
    assert labeller([labels.mount]).of_pod(pod_config(asked)) == labels  # two pods may ask for one level


def test_a_level_without_categories_is_enough() -> None:
    assert labeller().of_pod(pod_config(SELinuxOptions(level="s0"))).process == "system_u:system_r:container_t:s0"


@pytest.mark.parametrize(
    "asked",
    [
        SELinuxOptions(level="s0:c1,c9999"),
        SELinuxOptions(level='s0",user_xattr'),
        SELinuxOptions(type="a,b"),
        SELinuxOptions(user='u"'),
        SELinuxOptions(role="r r"),
    ],
)
def test_a_part_that_cannot_be_is_refused(asked: SELinuxOptions) -> None:
    with pytest.raises(Invalid, match="selinux_options"):
        labeller().of_pod(pod_config(asked))


@pytest.mark.parametrize("namespaces", [Namespaces(pid=HOST), Namespaces(ipc=HOST)])
def test_who_shares_the_hosts_processes_or_memory_has_no_label(namespaces: Namespaces) -> None:
    assert labeller().of_pod(pod_config(namespaces=namespaces)) == NO_LABELS
    assert labeller().of_container(container(namespaces=namespaces), pod(NO_LABELS)) == NO_LABELS


def test_a_container_has_its_pods_labels_but_for_what_it_asks_for() -> None:
    assert labeller().of_container(container(), pod(PLAIN)) == PLAIN
    own = labeller().of_container(container(SELinuxOptions(type="spc_t")), pod(PLAIN))
    assert own == ("system_u:system_r:spc_t:s0:c1,c2", PLAIN.mount)


def test_a_privileged_container_has_no_process_label_and_labelled_files() -> None:
    assert labeller().of_container(container(privileged=True), pod(PLAIN)) == ("", PLAIN.mount)


def test_host_network_unconfines_processes_unless_it_is_configured_otherwise() -> None:
    shared = Namespaces(network=HOST)
    held = pod(PLAIN, pod_config(namespaces=shared))
    assert labeller().of_container(container(namespaces=shared), held) == ("", PLAIN.mount)
    assert labeller().of_container(container(), held) == ("", PLAIN.mount)
    assert labeller(host_network_unconfined=False).of_container(container(namespaces=shared), held) == PLAIN


def test_a_policy_without_levels_gives_labels_without() -> None:
    flat = parse_contexts('process = "u:r:p"\nfile = "u:o:f"\n')
    assert labeller(contexts=flat).of_pod(pod_config()) == ("u:r:p", "u:o:f")


def test_super_privileged_volumes_keep_their_labels() -> None:
    spc, other = SELinuxOptions(type="spc_t"), SELinuxOptions(type="container_t")
    assert skips_relabel(spc, None)
    assert skips_relabel(None, spc)
    assert skips_relabel(SELinuxOptions(level="s0"), spc)
    assert not skips_relabel(other, spc)
    assert not skips_relabel(None, None)


def test_each_part_comes_from_the_container_then_from_its_pod() -> None:
    above = SELinuxOptions(user="u", role="r", type="t", level="s0")
    assert merged(None, above) == above
    assert merged(SELinuxOptions(type="x"), above) == SELinuxOptions(user="u", role="r", type="x", level="s0")


def test_the_policys_file() -> None:
    assert parse_contexts('process="u:r:p:s0"\n file = "u:o:f:s0" \n; x\n').process.type == "p"


@pytest.mark.parametrize(
    "text", ["", 'process = "u:r:p"', 'process = "junk"\nfile = "u:o:f"', '# process = "u:r:p"\nfile="u:o:f"']
)
def test_a_file_without_the_two_labels_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="lxc_contexts"):
        parse_contexts(text)


@given(st.text())
def test_any_file_gives_labels_or_a_clear_error(text: str) -> None:
    try:
        parse_contexts(text)
    except Invalid:
        return


@given(st.sets(st.tuples(st.integers(0, CATEGORIES - 1), st.integers(0, CATEGORIES - 1)), max_size=40))
def test_a_random_level_is_never_a_taken_one(pairs: set[tuple[int, int]]) -> None:
    taken = [f"u:r:t:s0:c{first},c{second}" for first, second in pairs]
    level = parse_label(labeller(taken).of_pod(pod_config()).mount).level
    assert level not in {f"s0:c{min(pair)},c{max(pair)}" for pair in pairs}
