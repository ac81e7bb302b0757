"""Attach pods to the node's network by running CNI plugins.

Different pods go in parallel; calls for one pod are serialised by the caller; GC runs alone, as the specification asks.
`delete` works from what `add` kept (`network.cache`), tries every plugin of the chain whatever fails, and forgets the
attachment only when all have succeeded: so it can be repeated until it does.

`lo` is brought up where the namespaces are made (`linux.namespaces`), so no loopback plugin is run here.

Source: CNI SPEC 1.1.0, section 3.
"""

import asyncio
import contextlib
import time
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Final

import msgspec

from criollo.aio import threads
from criollo.aio.cleanup import cleanup
from criollo.aio.watch import changes
from criollo.errors import CriolloError, Damaged, Invalid, NotFound, ToolFailed, Unavailable, explain
from criollo.linux.namespaces import is_pinned
from criollo.model.pod import Record
from criollo.network import conflist, plugins
from criollo.network.attachment import INTERFACE, Attached, Attachment, Json, capability_args, cni_args
from criollo.network.cache import KIND, Cache, Entry
from criollo.network.conflist import Loaded, Network
from criollo.network.plugins import PluginFailed
from criollo.network.results import CONTAINER_UNKNOWN, decode_result, pod_addresses
from criollo.network.strays import kill_strays
from criollo.network.turns import Turns
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

NOT_READY: Final = "NetworkPluginNotReady"  # kubelet shows it as the reason of the node's condition


class NetworkStatus(Record, frozen=True, kw_only=True):
    """The condition NetworkReady of CRI Status."""

    ready: bool
    reason: str = ""
    message: str = ""


class CniOptions(Record, frozen=True, kw_only=True):
    """`plugin_s` limits each plugin. `shortcuts` skips plugins that would only pass the result on. `owner` marks our cache."""

    plugin_s: float = 60
    status_s: float = 5
    status_age_s: float = 5
    shortcuts: bool = True
    owner: str = "criollo"


class Cni:
    """The network of this node. Call `load` once, or keep `watch` running, before the rest."""

    def __init__(
        self,
        conf_dir: Path,
        plugin_dirs: Sequence[Path],
        cache_dir: Path,
        default_network: str = "",
        *,
        options: CniOptions = CniOptions(),  # noqa: B008  # frozen
    ) -> None:
        self._conf_dir, self._plugin_dirs, self._default = conf_dir, tuple(plugin_dirs), default_network
        self._options = options
        self._cache = Cache(cache_dir, options.owner)
        self._loaded = Loaded(network=None, problem=f"{conf_dir} has not been read yet")
        self._trouble, self._asked_at = "", float("-inf")  # what STATUS said, and when (monotonic)
        self._turns = Turns()
        self._told: dict[str, str] = {}  # leftovers of the last `gc` and their causes: the sweeper asks every 30 s
        self._changed = asyncio.Event()  # wakes who waits for a usable network

    async def load(self) -> None:
        """Read the network directory."""
        loaded = await threads.files(conflist.load, self._conf_dir, self._plugin_dirs, default_network=self._default)
        if loaded == self._loaded:
            return
        self._loaded, self._trouble, self._asked_at = loaded, "", float("-inf")
        self._changed.set()
        for sentence in loaded.skipped:
            log.warning("CNI configuration skipped", cause=sentence)
        if loaded.network is None:
            log.warning("no CNI network", cause=loaded.problem)
        else:
            log.info("CNI network loaded", network=loaded.network.name, file=loaded.network.file)

    async def watch(self) -> None:
        """Load now and after every change of the network and plugin directories; never returns."""
        async with contextlib.aclosing(changes([self._conf_dir, *self._plugin_dirs])) as rounds:
            async for _ in rounds:
                await self.load()

    def status(self) -> NetworkStatus:
        """What is known now; runs nothing (see `refresh`)."""
        cause = self._trouble if self._loaded.network is not None else self._loaded.problem
        if self._loaded.network is not None and not cause:
            return NetworkStatus(ready=True)
        return NetworkStatus(ready=False, reason=NOT_READY, message=f"Network plugin returns error: {cause}")

    async def refresh(self) -> None:
        """Ask the plugins (STATUS), if the network's protocol has it (1.1.0) and the last answer is some seconds old."""
        network = self._loaded.network
        if network is None or not network.speaks("1.1.0") or time.monotonic() - self._asked_at < self._options.status_age_s:
            return
        self._asked_at = time.monotonic()
        trouble = ""
        for plugin in network.plugins:
            what = f"network {network.name} is not available"
            call = plugins.Call(command="STATUS", what=what, timeout_s=self._options.status_s)
            try:
                await plugins.execute(call, plugins.derive(network, plugin), self._plugin_dirs)
            except CriolloError as error:
                trouble = str(error)
                break
        if network is self._loaded.network:
            self._trouble = trouble
            self._changed.set()

    async def wait_ready(self) -> None:
        """Return when `status` is ready; while plugins say that they are not, they are asked again now and then."""
        while not self.status().ready:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._options.status_age_s):
                    await self._changed.wait()
                    continue
            await self.refresh()

    async def announce(self, attachment: Attachment) -> None:
        """Keep what `add` is about to do, so that `delete` knows it whatever happens: beside the making of the namespace.

        Raises:
            Unavailable, Invalid: as `add`.
        """
        await self._keep(self._entry(self._usable(attachment), attachment))

    async def add(self, attachment: Attachment, *, announced: bool = False) -> Attached:
        """Attach a pod. If a plugin fails, what the others did is undone before the error is raised.

        When cancelled, or when undoing fails too, the attachment stays known, and `delete` takes it down.

        Raises:
            Unavailable: no usable network, or a plugin is not installed.
            Invalid: a value of the pod that cannot be given to plugins.
            ToolFailed, TimedOut: a plugin failed, answered nonsense, or was killed at its limit.
        """
        network = self._usable(attachment)
        entry = self._entry(network, attachment)
        async with self._turns.shared():
            if not announced:
                await self._keep(entry)
            try:
                result = await self._add_chain(network, entry)
                attached = _attached(entry, result)
                await self._keep(msgspec.structs.replace(entry, result=result))
            except CriolloError:
                undo = self._delete_entry(network, entry)
                await cleanup(undo, limit_s=2 * self._options.plugin_s, what=f"network of pod {attachment.pod_id}")
                raise
        log.info("pod attached to network", pod=attachment.pod_id, network=network.name, ips=",".join(attached.ips))
        return attached

    async def delete(self, attachment: Attachment) -> None:
        """Detach a pod; safe to repeat. Works when the namespace is gone, and when the configuration has changed.

        Without a kept attachment the present configuration is used; without one there is nothing to do.

        Raises:
            ToolFailed, TimedOut, Unavailable: of the first plugin that failed; all others were run nevertheless.
        """
        async with self._turns.shared():
            kept = await threads.files(self._cache.find, attachment.pod_id)
            work = [(entry, parsed) for _, entry in kept if entry and (parsed := _parsed(entry))]
            if not work and (network := self._loaded.network):
                with contextlib.suppress(Invalid):  # then `add` cannot have run either
                    work = [(self._entry(network, attachment), network)]
            errors = [error for entry, network in work if (error := await self._try_delete(network, entry))]
            if errors:
                raise errors[0]
            for path, _ in kept:
                await threads.files(self._cache.remove, path.name)

    async def end_strays(self, pods: Container[str]) -> None:
        """Before pods are detached whose daemon was killed: nothing works for them any more."""
        for pod_id in await threads.spawning(kill_strays, pods):
            log.info("ended a network plugin without a daemon", pod=pod_id)

    async def check(self, attachment: Attachment) -> None:
        """Ask every plugin whether the attachment is still as ADD left it.

        Raises:
            NotFound: the pod is not attached.
            ToolFailed, TimedOut, Unavailable: a plugin found it broken or failed itself.
        """
        kept = await threads.files(self._cache.find, attachment.pod_id)
        done = [(entry, network) for _, entry in kept if entry and entry.result is not None and (network := _parsed(entry))]
        if not done:
            raise NotFound("network attachment of pod", attachment.pod_id)
        for entry, network in done:
            if network.disable_check or not network.speaks("0.4.0"):
                continue
            call = plugins.call_for(entry, "CHECK", netns=entry.netns, timeout_s=self._options.plugin_s)
            for plugin in network.plugins:
                request = plugins.derive(network, plugin, capability_args=entry.capability_args, previous=entry.result)
                if not self._skips(request):
                    await plugins.execute(call, request, self._plugin_dirs)

    async def gc(self, valid: Container[str], *, verb: bool = True) -> tuple[str, ...]:
        """Detach pods of ours that are not in `valid`, and with `verb` let plugins (1.1.0) drop what belongs to nobody.

        `valid` is asked after the attachments were listed, so a live view of all pods is right at any time. The verb runs
        alone: it waits for calls in progress and makes new ones wait. Returns the pod ids that could not be detached; the
        causes are in the log.
        """
        async with self._turns.shared():
            entries = await threads.files(self._cache.entries)
            failed: dict[str, str] = {}
            for entry in entries:
                if entry.runtime != self._options.owner or entry.container_id in valid:
                    continue
                network = _parsed(entry)
                error = await self._try_delete(network, entry) if network else None
                if error is None:
                    await threads.files(self._cache.remove, entry.file_name)
                    continue
                failed[entry.container_id] = str(error)
                if self._told.get(entry.container_id) != str(error):
                    log.warning("leftover network attachment stays", pod=entry.container_id, error=error)
            self._told = failed
            for container_id, name in await threads.files(self._cache.unfinished):
                if container_id not in valid:
                    await threads.files(self._cache.remove, name)
        if verb and (network := self._loaded.network) and not network.disable_gc and network.speaks("1.1.0"):
            async with self._turns.alone():
                await self._gc_plugins(network, await threads.files(self._cache.entries))
        return tuple(failed)

    def _usable(self, attachment: Attachment) -> Network:
        if self._loaded.network is None:
            raise Unavailable(f"cannot set up network of pod {attachment.pod_id}: {self.status().message}")
        return self._loaded.network

    async def _keep(self, entry: Entry) -> None:
        with explain(f"keep the network attachment of pod {entry.container_id}"):
            await threads.files(self._cache.write, entry)

    def _entry(self, network: Network, attachment: Attachment) -> Entry:
        return Entry(
            kind=KIND,
            container_id=attachment.pod_id,
            config=network.source,
            if_name=INTERFACE,
            network_name=network.name,
            netns=attachment.netns,
            cni_args=cni_args(attachment),
            capability_args=capability_args(attachment),
            runtime=self._options.owner,
        )

    async def _add_chain(self, network: Network, entry: Entry) -> Json:
        """Run ADD through the chain; each plugin gets the result of the one before."""
        result: Json | None = None
        call = plugins.call_for(entry, "ADD", netns=entry.netns, timeout_s=self._options.plugin_s)
        for plugin in network.plugins:
            request = plugins.derive(network, plugin, capability_args=entry.capability_args, previous=result)
            if not self._skips(request):
                result = await plugins.execute_for_result(call, request, self._plugin_dirs)
        assert result is not None  # the first plugin of a chain is never skipped
        return result

    async def _try_delete(self, network: Network, entry: Entry) -> CriolloError | None:
        try:
            await self._delete_entry(network, entry)
        except CriolloError as error:
            return error
        return None

    async def _delete_entry(self, network: Network, entry: Entry) -> None:
        """Run DEL through the chain backwards, then forget the entry.

        The specification halts at the first error; we go on, because each plugin releases things of its own (addresses,
        rules), and a DEL may be repeated. The first error is raised, the others are its notes.
        """
        log.info("Deleting pod from CNI network", pod=entry.container_id, network=network.name)
        previous = entry.result if network.speaks("0.4.0") else None
        netns = entry.netns if is_pinned(Path(entry.netns)) else ""  # plugins choke on a leftover plain file
        call = plugins.call_for(entry, "DEL", netns=netns, timeout_s=self._options.plugin_s)
        first: CriolloError | None = None
        for plugin in reversed(network.plugins):
            request = plugins.derive(network, plugin, capability_args=entry.capability_args, previous=previous)
            if self._skips(request):
                continue
            try:
                await plugins.execute(call, request, self._plugin_dirs)
            except CriolloError as error:
                if isinstance(error, PluginFailed) and error.code == CONTAINER_UNKNOWN:
                    continue
                if first is None:
                    first = error
                else:
                    first.add_note(str(error))
        if first is not None:
            raise first
        with explain(f"forget the network attachment of pod {entry.container_id}"):
            await threads.files(self._cache.remove, entry.file_name)
        log.info("Successfully cleaned up network for pod", pod=entry.container_id)

    async def _gc_plugins(self, network: Network, entries: Sequence[Entry]) -> None:
        """The GC verb. Attachments of other runtimes on the same network count as valid: they are not ours to judge."""
        listed = [
            {"containerID": entry.container_id, "ifname": entry.if_name}
            for entry in entries
            if entry.network_name == network.name
        ]
        what = f"cannot collect leftovers of network {network.name}"
        call = plugins.Call(command="GC", what=what, timeout_s=self._options.plugin_s)
        for plugin in network.plugins:
            request = plugins.derive(network, plugin)
            # libcni sends both names: early drafts of the specification had the second
            request |= {"cni.dev/valid-attachments": listed, "cni.dev/attachments": listed}
            try:
                await plugins.execute(call, request, self._plugin_dirs)
            except CriolloError as error:
                log.warning("CNI garbage collection failed", plugin=plugin.type, error=error)

    def _skips(self, request: Json) -> bool:
        return self._options.shortcuts and plugins.only_passes(request)


def _attached(entry: Entry, result: Json) -> Attached:
    """The checked answer of a chain.

    Raises:
        ToolFailed: the result is malformed.
    """
    raw = msgspec.json.encode(result)
    try:
        ips = pod_addresses(decode_result(raw), entry.netns)
    except Damaged as error:
        raise ToolFailed(f"cannot set up network of pod {entry.container_id}", [entry.network_name], 0, str(error)) from error
    return Attached(network_name=entry.network_name, ips=ips, result=raw)


def _parsed(entry: Entry) -> Network | None:
    """The network an entry was made with; None when its configuration cannot be read any more."""
    try:
        return conflist.parse(entry.config)
    except Invalid as error:
        log.warning("kept CNI configuration is unusable", pod=entry.container_id, network=entry.network_name, error=error)
        return None
