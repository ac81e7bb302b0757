"""Arguments, environment, working directory, scores, limits."""

import pytest
from specgen_requests import HOST, WEAK_HOST, config, pod, request, security

from criollo.errors import Invalid, Unsupported
from criollo.model.container import Capabilities
from criollo.oci import runtime_spec
from criollo.oci.runtime_spec import UNLIMITED
from criollo.specgen import process
from criollo.specgen.request import Defaults, ImageDefaults
from criollo.specgen.rlimits import Ulimit, parse_ulimit
from criollo.specgen.users import ResolvedUser

IMAGE = ImageDefaults(entrypoint=("/entry", "-v"), cmd=("serve",))


@pytest.mark.parametrize(
    ("command", "args", "image", "expected"),
    [
        ((), (), IMAGE, ("/entry", "-v", "serve")),
        ((), ("x",), IMAGE, ("/entry", "-v", "x")),
        (("/c",), (), IMAGE, ("/c",)),
        (("/c",), ("x",), IMAGE, ("/c", "x")),
        ((), (), ImageDefaults(cmd=("sh",)), ("sh",)),
        ((), ("x", ""), ImageDefaults(), ("x", "")),
    ],
)
def test_arguments(command: tuple[str, ...], args: tuple[str, ...], image: ImageDefaults, expected: tuple[str, ...]) -> None:
    assert process.arguments(config(command=command, args=args), image) == expected


@pytest.mark.parametrize(
    ("command", "image"), [((), ImageDefaults()), (("",), IMAGE), (("a\0b",), IMAGE), (("\udcff",), IMAGE)]
)
def test_nothing_to_run_is_refused(command: tuple[str, ...], image: ImageDefaults) -> None:
    with pytest.raises(Invalid):
        process.arguments(config(command=command), image)


def test_later_variables_take_the_place_of_earlier_ones() -> None:
    env, notes = process.environment(
        request(
            defaults=Defaults(env=("A=default", "B=default")),
            image=ImageDefaults(env=("B=image", "C=image")),
            config=config(env=(("C", "request"), ("D", "a=b"))),
        )
    )
    assert set(env) == {
        f"PATH={process.DEFAULT_PATH}",
        "HOSTNAME=front",
        "A=default",
        "B=image",
        "C=request",
        "D=a=b",
        "HOME=/",
    }
    assert notes == []


def test_terminal_gives_term_and_user_gives_home() -> None:
    env, _ = process.environment(request(config=config(tty=True), user=ResolvedUser(uid=1, home="/home/ada")))
    assert {"TERM=xterm", "HOME=/home/ada"} <= set(env)


def test_image_may_set_home_path_and_hostname() -> None:
    env, _ = process.environment(request(image=ImageDefaults(env=("HOME=/h", "PATH=/p", "HOSTNAME=x"))))
    assert set(env) == {"HOME=/h", "PATH=/p", "HOSTNAME=x"}


def test_variable_of_the_image_without_value_is_left_out_and_told() -> None:
    env, notes = process.environment(request(image=ImageDefaults(env=("JUNK", "A="))))
    assert "A=" in env
    assert not any(word.startswith("JUNK") for word in env)
    assert len(notes) == 1


def test_value_that_is_no_utf8_is_written_with_replacements_and_not_shown() -> None:
    raw = b"se\xffcret".decode("utf-8", "surrogateescape")
    built, notes = process.process(request(config=config(env=(("KEY", raw),))), HOST)
    assert "KEY=se\ufffdcret" in built.env
    assert runtime_spec.encode(built)
    assert "KEY" in notes[0]
    assert "cret" not in notes[0]


@pytest.mark.parametrize("variable", [("", "x"), ("a=b", "x"), ("a\0", "x"), ("a", "secret\0")])
def test_malformed_variables_are_refused_without_their_value(variable: tuple[str, str]) -> None:
    with pytest.raises(Invalid) as caught:
        process.environment(request(config=config(env=(variable,))))
    assert "secret" not in str(caught.value)


def test_home_with_a_newline_is_refused() -> None:
    with pytest.raises(Invalid, match="HOME"):
        process.environment(request(config=config(env=(("HOME", "/a\nroot::0:0"),))))


@pytest.mark.parametrize(
    ("asked", "image", "expected"), [("", "", "/"), ("", "/srv", "/srv"), ("/a/../b/", "/srv", "/b"), ("//x", "", "/x")]
)
def test_working_directory(asked: str, image: str, expected: str) -> None:
    assert process.working_directory(config(working_dir=asked), ImageDefaults(working_dir=image)) == expected


@pytest.mark.parametrize(
    "path", ["/proc/self/fd/7", "/proc", "/sys/x", "/dev", "/a/../proc/1", "relative", "/a\n", "/" + "x" * 5000]
)
def test_working_directory_of_known_bad_shape_is_refused(path: str) -> None:
    with pytest.raises(Invalid):
        process.working_directory(config(working_dir=path), ImageDefaults())
    with pytest.raises(Invalid):
        process.working_directory(config(), ImageDefaults(working_dir=path))


def test_score_is_clamped_only_without_the_capability() -> None:
    assert process.oom_score(-998, HOST) == (-998, [])
    score, notes = process.oom_score(-998, WEAK_HOST)
    assert (score, len(notes)) == (-5, 1)
    assert process.oom_score(-5, WEAK_HOST) == (-5, [])
    with pytest.raises(Invalid):
        process.oom_score(-1001, HOST)


def test_process_ends_with_no_privilege_for_another_user() -> None:
    built, _ = process.process(request(user=ResolvedUser(uid=7, gid=8, groups=(8,))), HOST)
    assert built.capabilities is not None
    assert built.capabilities.effective == built.capabilities.permitted == ()
    assert built.user == runtime_spec.User(uid=7, gid=8, umask=0o022, additional_gids=(8,))


def test_no_new_privileges_is_set_for_a_privileged_container_too_and_told_to_change_little() -> None:
    asked = security(no_new_privs=True, privileged=True)
    built, notes = process.process(request(config=config(security=asked)), HOST)
    assert built.no_new_privileges
    assert notes == ["no_new_privs is set for a privileged container: it has all capabilities from the beginning"]


def test_capability_the_daemon_lacks_is_refused_by_name() -> None:
    asked = security(capabilities=Capabilities(add=("SYS_RESOURCE",)))
    with pytest.raises(Unsupported, match="SYS_RESOURCE"):
        process.process(request(config=config(security=asked)), WEAK_HOST)


def test_limits_are_held_within_the_daemons_own() -> None:
    wanted = Defaults(ulimits=(parse_ulimit("nofile=8192:1048576"), parse_ulimit("core=-1")))
    strong, strong_notes = process.process(request(defaults=wanted), HOST)
    weak, weak_notes = process.process(request(defaults=wanted), WEAK_HOST)
    assert strong.rlimits[0] == runtime_spec.Rlimit(type="RLIMIT_NOFILE", soft=8192, hard=1048576)
    assert weak.rlimits[0] == runtime_spec.Rlimit(type="RLIMIT_NOFILE", soft=4096, hard=4096)
    assert (strong_notes, len(weak_notes)) == ([], 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nofile=1:2", Ulimit(name="nofile", soft=1, hard=2)),
        ("nproc=9", Ulimit(name="nproc", soft=9, hard=9)),
        ("core=0:-1", Ulimit(name="core", soft=0, hard=UNLIMITED)),
    ],
)
def test_ulimit_is_read(text: str, expected: Ulimit) -> None:
    assert parse_ulimit(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nofiles=1:2", "invalid ulimit type: nofiles"),
        ("nofile=3:2", "ulimit soft limit must be less than or equal to hard limit: 3 > 2"),
        ("nofile=-1:2", "must be less"),
        ("nofile", "name=soft:hard"),
        ("nofile=", "whole numbers"),
        ("nofile=1:2:3", "whole numbers"),
        ("nofile=٣", "whole numbers"),
        ("nofile=99999999999999999999", "whole numbers"),
    ],
)
def test_bad_ulimit_says_why(text: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        parse_ulimit(text)


def test_exec_has_the_containers_identity_and_its_own_words() -> None:
    first, _ = process.process(request(user=ResolvedUser(uid=7), pod=pod()), HOST)
    built = process.exec_process(first, ("ls", "-l"), terminal=True)
    assert (built.user, built.capabilities, built.cwd) == (first.user, first.capabilities, first.cwd)
    assert (built.args, built.terminal) == (("ls", "-l"), True)
    assert [word for word in built.env if word.startswith("TERM=")] == ["TERM=xterm"]
    with pytest.raises(Invalid):
        process.exec_process(first, ())


def test_what_nobody_sets_may_be_filled_in() -> None:
    env, _ = process.environment(request(env_if_unset=(("GOMAXPROCS", "4"),), image=ImageDefaults(env=("A=1",))))
    assert "GOMAXPROCS=4" in env
    env, _ = process.environment(request(env_if_unset=(("GOMAXPROCS", "4"),), image=ImageDefaults(env=("GOMAXPROCS=9",))))
    assert [each for each in env if each.startswith("GOMAXPROCS")] == ["GOMAXPROCS=9"]


def test_commands_start_on_the_cpu_that_the_container_is_given() -> None:
    first, _ = process.process(request(exec_cpu="3"), HOST)
    assert process.exec_process(first, ["true"]).exec_cpu_affinity == runtime_spec.CpuAffinity(initial="3")
    first, _ = process.process(request(), HOST)
    assert first.exec_cpu_affinity is None


@pytest.mark.parametrize(
    ("program", "answer"),
    [
        ("/sbin/init", True),
        ("/usr/sbin/init", True),
        ("/lib/systemd/systemd", True),
        ("systemd", True),
        ("/bin/init", False),
        ("/x-systemd", False),
    ],
)
def test_an_init_system_is_told_where_it_runs_and_how_it_is_stopped(program: str, answer: bool) -> None:
    asked = config(command=(program,))
    assert process.runs_systemd(asked, IMAGE) is answer
    assert process.usual_stop_signal(asked, IMAGE) == ("SIGRTMIN+3" if answer else "SIGTERM")
    assert ("container=crio" in process.environment(request(config=asked))[0]) is answer


def test_a_umask_may_be_given() -> None:
    for given, expected in ((None, 0o022), (0o077, 0o077), (0, 0)):
        assert process.process(request(umask=given), HOST)[0].user.umask == expected
