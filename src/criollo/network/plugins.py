"""Run one CNI plugin: its environment, its input, its answer.

A plugin gets an absolute path, a minimal environment, `/` as its directory and its configuration on stdin; it is killed
with its process group at the time limit (`aio.process`). Source: CNI SPEC 1.1.0, sections 2 and 3.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from criollo.aio import process
from criollo.errors import Damaged, Invalid, ToolFailed, Unavailable
from criollo.model.pod import Record
from criollo.network.attachment import Json
from criollo.network.cache import Entry
from criollo.network.conflist import Network, Plugin, find_plugin
from criollo.network.results import LIMIT_BYTES, PluginError, decode_error, decode_object
from criollo.telemetry.log import get_logger
from criollo.telemetry.scrub import scrubbed

log = get_logger(__name__)

# Plugins that only hand on the previous result when they are given nothing to do: plugin type → the capability that gives
# them work, and the keys of its configuration that do so as well. Running them costs two forks of a Go program per pod.
PASS_THROUGH: Final[Mapping[str, tuple[str, frozenset[str]]]] = {
    "portmap": ("portMappings", frozenset()),
    "bandwidth": ("bandwidth", frozenset({"ingressRate", "ingressBurst", "egressRate", "egressBurst"})),
}


class PluginFailed(ToolFailed):
    """A plugin said no; `code` is its error code, 0 when it gave none. What looks like a secret in its words is left out."""

    def __init__(self, what: str, path: Path, status: int, *, error: PluginError | None, said: str) -> None:
        super().__init__(what, [str(path)], status, scrubbed(str(error) if error else said))
        self.code = error.code if error else 0


class Call(Record, frozen=True, kw_only=True):
    """One execution. `what` begins its error messages; `netns` may be empty for DEL."""

    command: str
    what: str
    timeout_s: float
    container_id: str = ""
    netns: str = ""
    if_name: str = ""
    args: tuple[tuple[str, str], ...] = ()


def call_for(entry: Entry, command: str, *, netns: str, timeout_s: float) -> Call:
    """A call about one attachment."""
    return Call(
        command=command,
        what=f"cannot {_VERBS[command]} network {entry.network_name} of pod {entry.container_id}",
        timeout_s=timeout_s,
        container_id=entry.container_id,
        netns=netns,
        if_name=entry.if_name,
        args=entry.cni_args,
    )


def derive(network: Network, plugin: Plugin, *, capability_args: Json | None = None, previous: Json | None = None) -> Json:
    """The request configuration of one plugin: its own keys, what the protocol adds, without what it takes away."""
    request = {key: value for key, value in plugin.conf.items() if key != "capabilities" and not key.startswith("cni.dev/")}
    for key in _LIST_KEYS:
        request.pop(key, None)
    request |= {"cniVersion": network.version, "name": network.name}
    given = {name: value for name, value in (capability_args or {}).items() if name in plugin.capabilities}
    if given:
        request["runtimeConfig"] = given
    if previous is not None:
        request["prevResult"] = previous
    return request


def only_passes(request: Json) -> bool:
    """Whether this plugin, with this request, would change nothing and answer its prevResult."""
    known = PASS_THROUGH.get(str(request.get("type")))
    if known is None or "prevResult" not in request:
        return False
    capability, keys = known
    runtime = request.get("runtimeConfig")
    return not (isinstance(runtime, dict) and runtime.get(capability)) and keys.isdisjoint(request)


async def execute(call: Call, request: Json, plugin_dirs: Sequence[Path]) -> bytes:
    """Run the plugin that the request names; returns its stdout.

    Raises:
        Unavailable: the program is not there.
        PluginFailed: it reported an error or ended with one.
        TimedOut: it was killed at the limit.
    """
    kind = str(request["type"])
    try:
        path = find_plugin(kind, plugin_dirs)
    except Invalid as error:
        raise Unavailable(f"{call.what}: {error}") from error
    log.debug("running CNI plugin", command=call.command, plugin=path, container=call.container_id)
    finished = await process.attempt(
        process.Program([str(path)], env=_environment(call, plugin_dirs)),
        what=f"{call.what} (plugin {kind}, {call.command})",
        timeout_s=call.timeout_s,
        stdin=msgspec.json.encode(request),
        limit_bytes=LIMIT_BYTES,
    )
    told = decode_error(finished.stdout)
    if finished.status != 0 or told is not None:
        said = finished.stderr_tail().strip() or process.last_words(finished.stdout)
        raise PluginFailed(f"{call.what} (plugin {kind}, {call.command})", path, finished.status, error=told, said=said)
    return finished.stdout


async def execute_for_result(call: Call, request: Json, plugin_dirs: Sequence[Path]) -> Json:
    """Like `execute`, for a plugin that must answer with a result.

    Raises:
        PluginFailed: its result is no JSON object too.
    """
    answer = await execute(call, request, plugin_dirs)
    try:
        return decode_object(answer)
    except Damaged as error:
        raise PluginFailed(call.what, Path(str(request["type"])), 0, error=None, said=str(error)) from error


_VERBS: Final = {"ADD": "set up", "DEL": "tear down", "CHECK": "check"}
_LIST_KEYS: Final = ("cniVersions", "disableCheck", "disableGC", "loadOnlyInlinedPlugins")  # of a one-plugin file


def _environment(call: Call, plugin_dirs: Sequence[Path]) -> dict[str, str]:
    environment = {
        **process.MINIMAL_ENV,
        "CNI_COMMAND": call.command,
        "CNI_PATH": ":".join(map(str, plugin_dirs)),
    }
    if call.container_id:
        environment |= {
            "CNI_CONTAINERID": call.container_id,
            "CNI_NETNS": call.netns,
            "CNI_IFNAME": call.if_name,
            "CNI_ARGS": ";".join(f"{name}={value}" for name, value in call.args),
        }
    return environment
