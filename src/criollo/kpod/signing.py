"""`kpod sign` and `kpod verify`: signatures of images at their registry. They need no daemon; keys stay in this process."""

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from criollo.errors import Invalid, explain
from criollo.kpod.access import Access, access_options, shown_of, taken, terms_of
from criollo.kpod.remoteimage import PREFIX, opened_registry
from criollo.kpod.session import Options, load_settings
from criollo.kpod.text import document
from criollo.telemetry import log

if TYPE_CHECKING:
    from criollo.config.settings import Settings
    from criollo.images.examine import Verdict
    from criollo.oci.digest import Digest
    from criollo.oci.reference import Reference
    from criollo.oci.signature import Signature
    from criollo.registry.client import Registry, Shown


class Wish(NamedTuple):
    """With what to sign, as whom, and where simple signatures go (None: as registries.d says)."""

    key: Path | None
    user: str
    passphrase: bytes | None
    passphrase_file: Path | None
    identity: str
    directory: str | None
    access: Access


@click.command("sign")
@click.option(
    "--key", type=click.Path(path_type=Path), metavar="FILE", help="A private key in PEM: sigstore, kept in the registry."
)
@click.option("--sign-by", "user", default="", metavar="KEY", help="A key of your gpg: simple signing, kept in a lookaside.")
@click.option(
    "--passphrase-file", type=click.Path(path_type=Path), metavar="FILE", help="Its passphrase; none: it is asked for."
)
@click.option("--identity", default="", metavar="NAME", help="The name that is vouched for, if not IMAGE's own.")
@click.option("-d", "--directory", metavar="DIRECTORY", help="The lookaside to write into, if not the one of registries.d.")
@access_options
@click.argument("image")
@click.pass_obj
def sign(options: Options, /, image: str, **said: Any) -> int:
    """Sign IMAGE at its registry, and print the digests that are signed.

    Of an index, what it lists is signed as well: a node judges the manifest that it runs. Give --key or --sign-by.
    """
    log.set_up(options.log_level)
    wish = _wish(said)
    for digest, place in asyncio.run(_sign(load_settings(options).settings, image.removeprefix(PREFIX), wish)):
        click.echo(f"{digest}  {place}")
    return 0


@click.command("verify")
@click.option("--namespace", default="", help="Judge for pods of this Kubernetes namespace.")
@click.option("--key", metavar="FILE", help="Demand a sigstore signature by this public key, instead of what the policy says.")
@click.option(
    "--gpg-key", metavar="FILE", help="Demand a simple signature by this public key, instead of what the policy says."
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@access_options
@click.argument("image")
@click.pass_obj
def verify(options: Options, /, image: str, **said: Any) -> int:
    """Tell whether this node's trust policy lets IMAGE of a registry run, and why; the status is 1 when not."""
    log.set_up(options.log_level)
    if said["key"] and said["gpg_key"]:
        raise click.UsageError("--key and --gpg-key are alternatives.")
    settings = load_settings(options).settings
    verdict = asyncio.run(_verify(settings, image.removeprefix(PREFIX), said))
    click.echo(document(verdict._asdict()) if said["as_json"] else _as_text(verdict))
    return 1 if verdict.refusal else 0


def _wish(said: dict[str, Any]) -> Wish:
    key, user, file = said["key"], said["user"], said["passphrase_file"]
    if (key is None) == (not user):
        raise click.UsageError("Give --key or --sign-by.")
    if key is not None and said["directory"]:
        raise click.UsageError("--directory is for --sign-by: sigstore signatures go into the registry.")
    passphrase = None
    if key is not None:
        from criollo.trust.signing import is_encrypted

        if file is not None:
            with explain(f"read {file}"):
                passphrase = file.read_bytes().partition(b"\n")[0]
        elif is_encrypted(key):
            passphrase = click.prompt("Passphrase", hide_input=True, err=True).encode()
    return Wish(key, user, passphrase, file, said["identity"], said["directory"], taken(said))


async def _sign(settings: "Settings", name: str, wish: Wish) -> "list[tuple[Digest, str]]":
    async with opened_registry(settings, terms_of(wish.access)) as client:
        ref = client.hosts.candidates(name)[0].reference
        done = []
        for digest in await _digests(client, ref, shown_of(wish.access)):
            signature = await _make(wish, digest, wish.identity or str(ref))
            done.append((digest, await _keep(client, ref, digest, signature, wish)))
        return done


async def _digests(client: "Registry", ref: "Reference", shown: "Shown") -> "list[Digest]":
    """What a reference names, and of an index all that it lists."""
    from criollo.oci.digest import Digest
    from criollo.oci.image_spec import Index, decode_manifest

    fetched = await client.manifest(ref, shown)
    found = decode_manifest(fetched.raw, fetched.media_type, artifacts=True)
    listed = [each.digest for each in found.manifests] if isinstance(found, Index) else []
    return list(dict.fromkeys([Digest.of(fetched.raw), *listed]))


async def _make(wish: Wish, digest: "Digest", identity: str) -> "Signature":
    from criollo.trust import signing

    now = int(time.time())
    if wish.key is not None:
        return signing.sign_with_key(wish.key, wish.passphrase, digest, identity, now=now)
    return await signing.sign_with_gpg(wish.user, wish.passphrase_file, digest, identity, now=now)


async def _keep(client: "Registry", ref: "Reference", digest: "Digest", signature: "Signature", wish: Wish) -> str:
    """Put a signature to where nodes look for it; says where that is."""
    from criollo.aio import threads
    from criollo.linux.home import with_home
    from criollo.oci.signature import SignatureKind
    from criollo.registry import attached, lookaside
    from criollo.registry.registries_d import SignaturePlaces, default_lookaside, find_directory

    if signature.kind is SignatureKind.SIGSTORE:
        return str(await attached.attach(client, ref, digest, signature, shown_of(wish.access)))
    if wish.directory:
        base = Path(wish.directory).absolute().as_uri()
    else:
        places = await threads.files(SignaturePlaces.load, find_directory(with_home(os.environ)))
        base = places.staging(ref) or default_lookaside(with_home(os.environ), os.geteuid())
    return str(await threads.files(lookaside.store, base, ref.path, digest, signature.to_blob()))


async def _verify(settings: "Settings", name: str, said: dict[str, Any]) -> "Verdict":
    from criollo.engine.images import open_policies
    from criollo.images import remote
    from criollo.images.examine import examine
    from criollo.linux.home import with_home
    from criollo.registry.registries_d import find_directory
    from criollo.trust.judge import Judge
    from criollo.trust.policies import Policies

    shown = shown_of(taken(said))
    async with opened_registry(settings) as client:
        with tempfile.TemporaryDirectory(prefix="kpod-verify-") as scratch:
            own = _own_policy(said)
            policies = open_policies(settings, os.environ) if own is None else Policies.of(own)
            image = await remote.look(client, client.hosts.candidates(name)[0].reference, shown)
            judge = Judge(policies, scratch=Path(scratch) / "gpg")
            conf = find_directory(with_home(os.environ))
            return await examine(client, judge, conf, image, shown, namespace=said["namespace"])


def _own_policy(said: dict[str, Any]) -> Any:
    """The policy that --key or --gpg-key asks for; None without."""
    from criollo.trust.policy import Policy

    path = said["key"] or said["gpg_key"]
    if not path:
        return None
    if not os.path.isfile(path):
        raise Invalid("--key" if said["key"] else "--gpg-key", path, "a file that exists")
    demand = {"type": "sigstoreSigned"} if said["key"] else {"type": "signedBy", "keyType": "GPGKeys"}
    raw = msgspec.json.encode({"default": [{**demand, "keyPath": os.path.abspath(path)}]})
    return Policy.parse(raw, where="the command line")


def _as_text(verdict: "Verdict") -> str:
    found = ", ".join(f"{count} of {kind}" for kind, count in verdict.found.items()) or "none"
    return "\n".join(
        [
            f"digest      {verdict.digest}",
            f"policy      {verdict.policy}, scope {verdict.scope!r}",
            f"demands     {', '.join(verdict.demands)}",
            f"signatures  {found}",
            f"verdict     {verdict.refusal or 'it may run'}",
        ]
    )
