"""The bytes of an encrypted layer: the job `unwrap`, which finds its key, and the stream that it opens.

    unwrap     a child of its own with the private keys of the node, which sees the JWEs and nothing of the layer
    opener     in the child that unpacks: it has the key of this one layer, and no other

Bytes pass on before they are known to be right, as in `workers.unpack`: what is made of them is kept apart until the end,
where the HMAC must fit; an error is raised there. Source: containers/ocicrypt, blockcipher/blockcipher_aes_ctr.go.
"""

import hmac
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from criollo.errors import Damaged, Invalid, Unsupported, explain
from criollo.linux import files, sandbox
from criollo.workers.inflate import Opener
from criollo.workers.messages import Cipher, UnwrapJob, Unwrapped

if TYPE_CHECKING:
    from criollo.workers.jwe import PrivateKey

MAX_KEYS: Final = 100
MAX_KEY_BYTES: Final = 64 << 10
_MEMORY_BYTES: Final = 1 << 30
_CPU_S: Final = 60


def unwrap(job: UnwrapJob, keep: int) -> Unwrapped:
    """What is inside the first JWE that a private key of the node opens; `keep` is the descriptor of the answers.

    The keys are read first. Then nothing of the host is seen any more, and the JWEs are looked at.

    Raises:
        Unsupported: no key opens one, or none of them is a JWE that is read; the message says how many keys were tried.
    """
    from criollo.workers import jwe  # cryptography takes 12 MiB and 40 ms, and few nodes have such images

    directory = Path(job.keys)
    keys, useless = _read_keys(directory)
    if not keys:
        raise Unsupported(_no_key(job, 0, useless))
    _give_up_the_host(directory, keep)
    malformed: list[str] = []
    for text in job.jwes:
        try:
            found = jwe.decrypt(text, keys)
        except jwe.Malformed as error:
            malformed.append(str(error))
            continue
        if found is not None:
            return Unwrapped(found)
    if len(malformed) == len(job.jwes):
        raise Unsupported(f"cannot decrypt {job.what}: its wrapped key is none that is read: {malformed[0]}")
    raise Unsupported(_no_key(job, len(keys), useless))


def opener(cipher: Cipher) -> Opener:
    """What makes plain pieces of encrypted ones; to be read to the end, where it raises Damaged if they are not the right ones.

    It imports: call it before the process is confined.
    """
    from cryptography.hazmat.primitives.ciphers import Cipher as Engine  # as above
    from cryptography.hazmat.primitives.ciphers import algorithms, modes

    engine = Engine(algorithms.AES(cipher.key), modes.CTR(cipher.nonce)).decryptor()
    mac = hmac.new(cipher.key, digestmod="sha256")

    def plain(pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            mac.update(piece)
            yield engine.update(piece)
        if not hmac.compare_digest(mac.digest(), cipher.hmac):
            raise Damaged("layer does not have the HMAC that its annotations say: it was changed after it was encrypted")

    return plain


def _read_keys(directory: Path) -> tuple[list["PrivateKey"], list[str]]:
    """The private keys in a directory, and the names of files that hold none."""
    from criollo.workers.jwe import load_key  # as above

    keys: list[PrivateKey] = []
    useless: list[str] = []
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    for name in names:
        if name.startswith("."):
            continue
        try:
            keys.append(load_key(files.read_limited(directory / name, MAX_KEY_BYTES)))
        except (OSError, ValueError, Invalid):
            useless.append(name)
        if len(keys) >= MAX_KEYS:
            break
    return keys, useless


def _give_up_the_host(directory: Path, keep: int) -> None:
    with explain("confine the worker that unwraps keys"):
        sandbox.enter(os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        sandbox.keep_only((keep,))
        sandbox.limit(memory_bytes=_MEMORY_BYTES, files=16, file_bytes=0, cpu_s=_CPU_S)
        sandbox.drop_privileges(())


def _no_key(job: UnwrapJob, tried: int, useless: list[str]) -> str:
    others = f", {len(useless)} more files hold none that is read ({', '.join(useless[:3])})" if useless else ""
    return (
        f"cannot decrypt {job.what}: none of the {tried} private keys in {job.keys} opens it{others}; "
        "put the key there (decryption_keys_path) and pull again"
    )
