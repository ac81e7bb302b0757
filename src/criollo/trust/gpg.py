"""Signatures by GPG keys: Debian's gpg in a home of its own that is thrown away, with limits.

    async with keyring(keys, scratch=...) as ring:     # gpg --import
        verified = await ring.verify(message)           # gpg --verify, one process per signature

The keys of the requirement are all that gpg knows, so whatever it calls a good signature is by one of them. Its words are read
from a descriptor that the text does not reach, and must say exactly one thing: one text, one signature, good, by a known key,
nothing expired or revoked. No agent and no dirmngr is started.

Source: GnuPG, doc/DETAILS, section "Format of the --status-fd output".
"""

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from criollo.aio import process, threads
from criollo.aio.cleanup import cleanup
from criollo.errors import CriolloError, Denied, TimedOut, ToolFailed, explain
from criollo.linux import files
from criollo.oci.signature import MAX_BYTES

LIMIT_S: Final = 20.0
FOREVER: Final = float("inf")
_PAYLOAD_BYTES: Final = MAX_BYTES
_OPTIONS: Final = (
    *("--batch", "--no-tty", "--no-options", "--no-autostart", "--disable-dirmngr", "--no-auto-key-retrieve"),
    *("--lock-never", "--no-auto-check-trustdb", "--trust-model", "always", "--no-secmem-warning", "--no-permission-warning"),
)
_STATUS: Final = re.compile(r"^\[GNUPG:\] ([A-Z_]+)(?: (.*))?$")
_UNUSABLE: Final = "6"  # GPG_ERR_BAD_PUBKEY
_BAD: Final = {
    "BADSIG": "it does not fit its text",
    "EXPSIG": "the signature has expired",
    "EXPKEYSIG": "the key has expired",
    "REVKEYSIG": "the key is revoked",
    "ERRSIG": "it is by a key that the policy does not have, or cannot be checked",
    "NODATA": "it is no signed OpenPGP message",
    "UNEXPECTED": "it is no signed OpenPGP message",
    "FAILURE": "gpg cannot read it",
}


class Verified(NamedTuple):
    """The text of a good signature, and until when (seconds since the epoch) it stays good."""

    payload: bytes
    until: float


class Keyring:
    """Keys in a home of gpg; made by `keyring`."""

    def __init__(self, home: Path, fingerprints: frozenset[str], until: float) -> None:
        self._home, self._fingerprints, self._until = home, fingerprints, until

    async def verify(self, message: bytes) -> Verified:
        """The text inside a signed message.

        Raises:
            Denied: the signature is not good; the message says why.
            TimedOut, ToolFailed: gpg did not do its work.
        """
        output = self._home / f"text-{secrets.token_hex(8)}"
        arguments = ["--max-output", str(_PAYLOAD_BYTES), "--output", str(output), "--verify"]
        ended = await _gpg(self._home, arguments, message, what="verify a signature")
        until = min(_judge(_statuses(ended.stdout), self._fingerprints), self._until)
        if ended.status != 0:
            raise Denied(f"gpg refuses it with status {ended.status}")
        with explain("read the text of a signature"):
            payload = await threads.files(files.read_limited, output, _PAYLOAD_BYTES)
        return Verified(payload, until)


@contextlib.asynccontextmanager
async def keyring(keys: Sequence[bytes], *, scratch: Path) -> AsyncIterator[Keyring]:
    """A keyring with all public keys in `keys` (armoured or not); its home below `scratch` is gone afterwards.

    Raises:
        Denied: there is no usable key in them.
        TimedOut, ToolFailed, HostFailed: gpg did not do its work.
    """
    home = await threads.handed_over(lambda: _make_home(scratch), _remove_home)
    try:
        imported: set[str] = set()
        for key in keys:
            ended = await _gpg(home, ["--import"], key, what="import keys")
            imported |= {words.split()[1] for name, words in _statuses(ended.stdout) if name == "IMPORT_OK"}
        if not imported:
            raise Denied("no public key in the key files of the policy")
        listed = await _gpg(home, ["--with-colons", "--fixed-list-mode", "--list-keys"], b"", what="list keys")
        yield Keyring(home, frozenset(imported), _expiry(listed.stdout))
    finally:
        await cleanup(_remove_home(home), what=f"remove {home}")


def _make_home(scratch: Path) -> Path:
    with explain("make a home for gpg"):
        files.make_directory(scratch, 0o700)
        home = scratch / f"gpg-{secrets.token_hex(8)}"
        home.mkdir(0o700)
    return home


async def _remove_home(home: Path) -> None:
    await threads.files(shutil.rmtree, home, ignore_errors=True)


async def _gpg(home: Path, arguments: Sequence[str], stdin: bytes, *, what: str) -> process.Finished:
    argv = ["gpg", "--homedir", str(home), *_OPTIONS, "--status-fd", "1", *arguments]
    env = {**process.MINIMAL_ENV, "HOME": str(home), "GNUPGHOME": str(home)}
    try:
        return await process.attempt(process.Program(argv, env), what=f"cannot {what}", timeout_s=LIMIT_S, stdin=stdin)
    except (TimedOut, ToolFailed):
        raise
    except CriolloError as error:
        raise ToolFailed(f"cannot {what}; is the package gpg installed?", argv, None, str(error)) from error


def _statuses(output: bytes) -> list[tuple[str, str]]:
    """What gpg said on its status descriptor, as word and arguments."""
    lines = output.decode("utf-8", "replace").splitlines()
    return [(found[1], found[2] or "") for line in lines if (found := _STATUS.match(line))]


def _judge(said: Sequence[tuple[str, str]], fingerprints: frozenset[str]) -> float:
    """When the one good signature that gpg found ends to be good.

    Raises:
        Denied: it did not find exactly one, or not by a key of ours.
    """
    names = [name for name, _ in said]
    for name, words in said:
        if name in _BAD:
            raise Denied(_cause(name, words))
    for name in ("PLAINTEXT", "NEWSIG", "GOODSIG", "VALIDSIG"):
        if names.count(name) != 1:
            raise Denied(f"it is not one text with one signature (gpg said {name} {names.count(name)} times)")
    fields = dict(said)["VALIDSIG"].split()
    if len(fields) < 10 or not {fields[0], fields[9]} & fingerprints:
        raise Denied("it is by a key that the policy does not have")
    return float(fields[3]) if fields[3].isdecimal() and fields[3] != "0" else FOREVER


def _cause(name: str, words: str) -> str:
    """What a refusal means. Of a key that is younger than the clock says it is, gpg says no more than that it is unusable.

    Source: GnuPG, doc/DETAILS, ERRSIG: <keyid> <pkalgo> <hashalgo> <sig_class> <time> <rc> <fpr>.
    """
    fields, now = words.split(), time.time()
    if name == "ERRSIG" and len(fields) > 5 and fields[5] == _UNUSABLE and fields[4].isdecimal() and float(fields[4]) > now:
        shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
        return f"it was made later than it is by this node's clock, {shown}; set the clock"
    return _BAD[name]


def _expiry(listing: bytes) -> float:
    """The first moment at which one of the keys or subkeys will have expired."""
    now, ends = time.time(), [FOREVER]
    for line in listing.decode("utf-8", "replace").splitlines():
        fields = line.split(":")
        if fields[0] in ("pub", "sub") and len(fields) > 6 and fields[6].isdecimal() and float(fields[6]) > now:
            ends.append(float(fields[6]))
    return min(ends)


def remove_leftovers(scratch: Path) -> None:
    """Take away the homes that a process left that was killed; blocking."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(scratch):
            if name.startswith("gpg-"):
                shutil.rmtree(scratch / name, ignore_errors=True)
