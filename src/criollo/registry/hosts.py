"""Which server answers for an image name, and what a short name stands for: registries.conf, else hosts.toml.

The longest matching `[[registry]]` table decides; its mirrors come first, its own location last. What a table blocks is not
asked, as a mirror or location of another table neither; mirrors of a blocked table are. A name without a table is served as
the hosts.toml of its registry says, and without that by its own domain. Plain HTTP and unverified TLS exist only where a file
says so, for the host it names; a hosts.toml without a server says so of this node's own addresses.

Source: containers-registries.conf(5); containers/image, pkg/sysregistriesv2; containerd's document on registry hosts.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from criollo.errors import Forbidden, Invalid, printable
from criollo.oci.reference import DEFAULT_DOMAIN, Reference, is_short
from criollo.registry import certs, registries_conf
from criollo.registry.conf_files import find_drop_ins
from criollo.registry.endpoints import NO_TLS, PULL, PUSH, RESOLVE, Endpoint, Tls
from criollo.registry.registries_conf import AUTH_FILES, Alias, Mirror, Mode, Rule
from criollo.registry.terms import USUAL, Terms

AMBIGUOUS: Final = "short name mode is enforcing, but image name {} returns ambiguous list"  # CRI-O's words


class Candidate(NamedTuple):
    """A reference that a name may mean, and why."""

    reference: Reference
    because: str


class Hosts:
    """The rules of one set of files; without any, every name is served by its own domain over verified TLS."""

    def __init__(
        self,
        rules: Iterable[Rule] = (),
        *,
        search: Iterable[str] | None = None,
        mode: Mode = Mode.ENFORCING,
        aliases: Mapping[str, Alias] | None = None,
        directories: Sequence[Path] = (),
    ) -> None:
        """`search` is None where no file has the list: short names are then docker.io's. `directories`: see `certs`."""
        self._rules = tuple(sorted(rules, key=lambda rule: rule.prefix))  # of two prefixes of one length the first counts
        self.search = None if search is None else tuple(search)
        self.mode = mode
        self.credential_programs: tuple[str, ...] = (AUTH_FILES,)
        self._aliases = dict(aliases or {})
        self._directories = tuple(directories)
        self._terms = USUAL

    @classmethod
    def load(
        cls,
        conf: Path | None,
        conf_d: Sequence[Path] = (),
        *,
        aliases_file: Path | None = None,
        directories: Sequence[Path] = (),
        mode: Mode | None = None,
    ) -> "Hosts":
        """Read a registries.conf and the `*.conf` files of directories; `mode` wins over theirs.

        Raises:
            Invalid: a file is malformed, or `conf` is missing; the message names the file.
        """
        found = registries_conf.load(conf, find_drop_ins(conf_d), aliases_file=aliases_file)
        hosts = cls(
            found.rules,
            search=found.search,
            mode=mode or found.mode or Mode.ENFORCING,
            aliases=found.aliases,
            directories=directories,
        )
        if found.credential_programs is not None:
            hosts.credential_programs = found.credential_programs
        return hosts

    @property
    def default_domain(self) -> str:
        """The registry of a short name without an alias: the first of the search list."""
        return self.search[0] if self.search else DEFAULT_DOMAIN

    def candidates(self, text: str, *, field: str = "image") -> list[Candidate]:
        """The references that `text` may mean, in the order to try them.

        Raises:
            Invalid: it is no reference, or a short name that means nothing, or too much for this mode.
        """
        found = self.meanings(text, field=field)
        if not found:
            raise Invalid(
                field, text, "a name with its registry: the search list of registries.conf is empty, and no alias fits"
            )
        if len(found) > 1 and self.mode is Mode.ENFORCING:
            listed = " or ".join(str(candidate.reference) for candidate in found[:5])
            raise Invalid(
                field,
                text,
                f"a full name ({listed}), an alias in registries.conf, or short_name_mode permissive or disabled: "
                f"{AMBIGUOUS.format(printable(text)[:255])}",
            )
        return found

    def meanings(self, text: str, *, field: str = "image") -> list[Candidate]:
        """Every reference that `text` may mean, whatever the mode: what is here already needs no asking.

        Raises:
            Invalid: it breaks the grammar of references.
        """
        whole = Reference.parse(text, field=field, default_domain=self.default_domain)
        if not is_short(text):
            return [Candidate(whole, "")]
        name = _without_tag(text)
        suffix = text[len(name) :]
        alias = self._aliases.get(name)
        if alias is not None and alias.target:
            return [Candidate(Reference.parse(alias.target + suffix, field=field), f"alias in {alias.file}")]
        if self.search is None:
            return [Candidate(whole, "short names are docker.io's")]
        return [
            Candidate(Reference.parse(text, field=field, default_domain=host), "unqualified-search-registries")
            for host in self.search
        ]

    def endpoints(self, ref: Reference, *, for_content: bool = False) -> list[Endpoint]:
        """Where to ask for an image, in order; the last one is its registry, those before are mirrors.

        `for_content`: for what is known by its digest already, such as the blobs of a manifest.

        Raises:
            Forbidden: the name is blocked, or no host of its hosts.toml may be asked.
            Invalid: its hosts.toml is malformed, or a table leads nowhere.
        """
        return self._terms.applied(self._by_files(ref, for_content=for_content))

    def _by_files(self, ref: Reference, *, for_content: bool) -> list[Endpoint]:
        rule = self.rule(ref)
        if rule is None:
            return self._by_hosts_toml(ref, PULL if for_content or ref.digest is not None else RESOLVE)
        found = [_moved(ref, rule, mirror, mirror=True) for mirror in rule.mirror if _serves(mirror, rule, ref)]
        found = [endpoint for endpoint in found if self._block_of(endpoint) is None]
        home = _moved(ref, rule, rule)
        blocked = rule if rule.blocked else self._block_of(home)
        if blocked is None:
            return [*found, home]
        if not found:
            raise Forbidden(f"cannot pull {ref}: registries.conf blocks {blocked.prefix}; remove `blocked` there to allow it")
        because = f"{found[-1].because}, the last that may be asked: {blocked.prefix} is blocked"
        return [*found[:-1], msgspec.structs.replace(found[-1], is_mirror=False, because=because)]

    def _block_of(self, endpoint: Endpoint) -> Rule | None:
        """The table that blocks what an endpoint is called."""
        rule = self._rule_of(endpoint.host, endpoint.repository)
        return rule if rule is not None and rule.blocked else None

    def home(self, ref: Reference) -> Endpoint:
        """The server for pushes: that of the name itself, or the first host of its hosts.toml that is said to take them.

        Raises:
            Forbidden: the name is blocked, or no host of its hosts.toml takes pushes.
            Invalid: its hosts.toml is malformed.
        """
        rule = self.rule(ref)
        if rule is None:
            found = self._by_hosts_toml(ref, PUSH)[0]
            return self._terms.applied([msgspec.structs.replace(found, is_mirror=False)])[0]
        if rule.blocked:
            raise Forbidden(f"cannot use {ref}: registries.conf blocks {rule.prefix}; remove `blocked` there to allow it")
        because = f"{rule.file or 'registries.conf'}: {rule.prefix}; only pulls are moved"
        endpoint = Endpoint(host=ref.domain, repository=ref.path, is_insecure=rule.insecure, because=because)
        return self._terms.applied([endpoint])[0]

    def on(self, terms: Terms) -> "Hosts":
        """These rules, but for what is said about TLS."""
        other = copy.copy(self)
        other._terms = terms
        return other

    def rule(self, ref: Reference) -> Rule | None:
        """The `[[registry]]` table for a reference."""
        return self._rule_of(ref.domain, ref.path, tag=ref.tag, digest=ref.digest or "")

    def _rule_of(self, domain: str, path: str, *, tag: str = "", digest: str = "") -> Rule | None:
        name = f"{domain}/{path}"
        whole = {name, *([f"{name}:{tag}"] if tag else []), *([f"{name}@{digest}"] if digest else [])}
        matching = [rule for rule in self._rules if rule.prefix in whole or _begins(rule.prefix, name) is not None]
        return max(matching, key=lambda rule: len(rule.prefix), default=None)

    def on_host(self, host: str) -> Endpoint:
        """The server of a host itself, for what is about no repository."""
        endpoint = Endpoint(host=host, repository="", is_insecure=self.is_insecure(host), because="its own domain")
        return self._terms.applied([endpoint])[0]

    def tls(self, host: str) -> Tls:
        """What TLS with `host[:port]` needs, by the per-host directories.

        Raises:
            Invalid, HostFailed: they are malformed, or cannot be read.
        """
        if self._terms.certificates:
            return certs.read_tls(Path(self._terms.certificates))
        return certs.find_tls(self._directories, host) if self._directories else NO_TLS

    def is_insecure(self, host: str) -> bool:
        """Whether a table marks this whole host (`host:port` as written there) as insecure."""
        if self._terms.verify is not None:
            return not self._terms.verify
        for rule in self._rules:
            locations = [(rule.location or rule.prefix, rule.insecure)]
            locations += [(mirror.location, mirror.insecure) for mirror in rule.mirror]
            if any(insecure and _covers(location, host) for location, insecure in locations):
                return True
        return False

    def _by_hosts_toml(self, ref: Reference, capability: str) -> list[Endpoint]:
        found = certs.find_hosts_toml(self._directories, ref.domain) if self._directories else None
        if found is None:
            return [Endpoint(host=ref.domain, repository=ref.path, because="its own domain")]
        from criollo.registry import hosts_toml  # most hosts have none

        path, raw = found
        file = hosts_toml.parse(raw, path=path, domain=ref.domain)
        allowed = [each for each in file.endpoints(ref, capability=capability) if self._block_of(each) is None]
        if not allowed:
            raise Forbidden(f"cannot use {ref}: registries.conf blocks each host of {path} for it; remove `blocked` there")
        return [*allowed[:-1], msgspec.structs.replace(allowed[-1], is_mirror=False)]


def _without_tag(text: str) -> str:
    """A short name without tag and digest."""
    head, slash, last = text.partition("@")[0].rpartition("/")
    return head + slash + last.partition(":")[0]


def _begins(prefix: str, name: str) -> int | None:
    """How much of a name a prefix stands for, if it is one: up to a slash, or up to the port, as the other tools take it."""
    if prefix.startswith("*."):
        host = name.partition("/")[0].rpartition(":")[0] or name.partition("/")[0]
        return len(host) if host.endswith(prefix[1:]) and len(host) >= len(prefix) else None
    if name.startswith((f"{prefix}/", f"{prefix}:")) or name == prefix:
        return len(prefix)
    return None


def _serves(mirror: Mirror, rule: Rule, ref: Reference) -> bool:
    if rule.mirror_by_digest_only or mirror.pull_from_mirror == "digest-only":
        return ref.digest is not None
    return mirror.pull_from_mirror != "tag-only" or ref.digest is None


def _moved(ref: Reference, rule: Rule, to: Rule | Mirror, *, mirror: bool = False) -> Endpoint:
    """The reference's place below the location of `to` instead of below the rule's prefix."""
    because = f"{rule.file or 'registries.conf'}: {'mirror' if mirror else 'location'} of {rule.prefix}"
    name = ref.name
    if to.location:
        name = _bare(to.location) + name[_begins(_bare(rule.prefix), name) or 0 :]
    host, _, repository = name.partition("/")
    if not repository or ":" in repository or not registries_conf.is_host(host):
        raise Invalid("registries.conf", to.location, f"a location that names a repository for {ref.name}")
    return Endpoint(host=host, repository=repository, is_insecure=to.insecure, is_mirror=mirror, because=because)


def _bare(location: str) -> str:
    """Without a tag or digest at its end."""
    location = location.partition("@")[0]
    head, slash, last = location.rpartition("/")
    return f"{head}/{last.partition(':')[0]}" if slash else location


def _covers(location: str, host: str) -> bool:
    """Whether a location is all of a host, at whichever port where it names none."""
    return location == host or ("/" not in location and _begins(location, f"{host}/") is not None)
