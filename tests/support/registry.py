"""Debian's docker-registry on a free loopback port: open, behind a password, or behind a token server; plain HTTP or TLS.

with run_registry(auth="token") as registry:
    push(registry, "team/app", "v1", image)          # support.images
    text = registry.registries_conf()                # marks it insecure
    registry.host, registry.username, registry.password, registry.tokens.requests
"""

import base64
import contextlib
import http.client
import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from support.serving import Quiet, serving

PROGRAM = "docker-registry"
USERNAME = "alice"
PASSWORD = "open sesame"
IDENTITY_TOKEN = "identity-of-alice"
_HTPASSWD = "alice:$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy\n"  # bcrypt, the only kind the registry reads
_SERVICE = "test-registry"


def is_available() -> bool:
    return shutil.which(PROGRAM) is not None


@dataclass
class Registry:
    """A running registry; `host` is what goes before the slash of a reference."""

    host: str
    root: Path
    username: str = ""
    password: str = ""
    tokens: "TokenServer | None" = None
    ca: Path | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    mark: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)  # in each answer: which of several it is

    @property
    def url(self) -> str:
        return f"{'https' if self.ca else 'http'}://{self.host}"

    def reference(self, repository: str, tag: str = "latest") -> str:
        return f"{self.host}/{repository}:{tag}"

    def connect(self) -> http.client.HTTPConnection:
        if self.ca is None:
            return http.client.HTTPConnection(self.host, timeout=30)
        return http.client.HTTPSConnection(self.host, timeout=30, context=ssl.create_default_context(cafile=str(self.ca)))

    def push_headers(self, repository: str) -> dict[str, str]:
        """The headers with which a test may push."""
        if self.tokens is not None:
            return {"Authorization": f"Bearer {self.tokens.sign(self.username, repository, ['pull', 'push'])}"}
        if self.username:
            return {"Authorization": basic(self.username, self.password)}
        return {}

    def registries_conf(self) -> str:
        """A registries.conf that marks this registry insecure and makes it the one of short names."""
        return f'unqualified-search-registries = ["{self.host}"]\n[[registry]]\nlocation = "{self.host}"\ninsecure = true\n'

    def stop(self) -> None:
        """Stop it before its time: a dead registry."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)


@contextlib.contextmanager
def run_registry(auth: str | None = None, *, tls: bool = False) -> Iterator[Registry]:
    """A registry with an empty store; `auth` is None, "basic" or "token" (user `alice`, password `open sesame`)."""
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="registry-")))
        registry = Registry(host="", root=root)
        if auth is not None:
            registry.username, registry.password = USERNAME, PASSWORD
        if auth == "token":
            registry.tokens = stack.enter_context(run_token_server(root))
        if tls:
            registry.ca = make_certificate(root, "server")
        for _ in range(5):
            registry.host = f"127.0.0.1:{free_port()}"
            if _start(registry, auth):
                stack.callback(registry.stop)
                yield registry
                return
        raise RuntimeError(f"{PROGRAM} does not start: {(root / 'log').read_text()[-2000:]}")


DEAD_HOST = "127.0.0.1:1"  # nobody is there: the kernel gives out no such port by chance, also not to who connects to it


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def make_certificate(directory: Path, name: str) -> Path:
    """A self-signed certificate for 127.0.0.1 and localhost, `<name>.crt` beside `<name>.key`."""
    certificate = directory / f"{name}.crt"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    argv += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    argv += ["-keyout", str(directory / f"{name}.key"), "-out", str(certificate)]
    subprocess.run(argv, check=True, capture_output=True)
    return certificate


def _start(registry: Registry, auth: str | None) -> bool:
    root = registry.root
    config = root / "config.yml"
    config.write_text(json.dumps(_config(registry, auth)))  # JSON is YAML
    with open(root / "log", "ab") as log:
        registry.process = subprocess.Popen(
            [PROGRAM, "serve", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]}
        )
    deadline = time.monotonic() + 60
    while registry.process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), contextlib.closing(registry.connect()) as connection:
            connection.request("GET", "/v2/")
            answer = connection.getresponse()
            answer.read()
            if answer.status in (200, 401) and answer.headers["X-Mark"] == registry.mark:
                return True
        time.sleep(0.02)  # between looks at a condition
    registry.stop()
    return False


def _config(registry: Registry, auth: str | None) -> dict[str, object]:
    root = registry.root
    serving: dict[str, object] = {"addr": registry.host, "secret": "not one", "headers": {"X-Mark": [registry.mark]}}
    if registry.ca is not None:
        serving["tls"] = {"certificate": str(registry.ca), "key": str(root / "server.key")}
    config: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(root / "store")}, "delete": {"enabled": True}},
        "http": serving,
    }
    if auth == "basic":
        (root / "htpasswd").write_text(_HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(root / "htpasswd")}}
    if registry.tokens is not None:
        config["auth"] = {
            "token": {
                "realm": registry.tokens.realm,
                "service": _SERVICE,
                "issuer": "tests",
                "rootcertbundle": str(registry.tokens.certificate),
            }
        }
    return config


# Token server ---------------------------------------------------------------------------------------------------------


@dataclass
class TokenServer:
    """Signs what alice, or nobody in particular, may do. `requests` has (method, query or form, Authorization)."""

    certificate: Path
    key: Path
    realm: str = ""
    is_open: bool = False  # whether the anonymous may pull
    life_s: int = 300
    requests: list[tuple[str, dict[str, list[str]], str]] = field(default_factory=list)

    def sign(self, user: str, repository: str, actions: list[str]) -> str:
        """A token as the registry reads it: a JWT by RS256 or ES256 with its certificate inside."""
        der = ssl.PEM_cert_to_DER_cert(self.certificate.read_text())
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        now = int(time.time())
        access = [{"type": "repository", "name": repository, "actions": actions}] if actions else []
        claims = {
            **{"iss": "tests", "sub": user, "aud": _SERVICE, "jti": secrets.token_hex(8)},
            **{"nbf": now - 60, "iat": now - 60, "exp": now + self.life_s, "access": access},
        }
        text = f"{_url64(json.dumps(head).encode())}.{_url64(json.dumps(claims).encode())}"
        argv = ["openssl", "dgst", "-sha256", "-sign", str(self.key)]
        signature = subprocess.run(argv, input=text.encode(), check=True, capture_output=True).stdout
        return f"{text}.{_url64(signature)}"

    def answer(self, method: str, asked: dict[str, list[str]], authorization: str) -> tuple[int, dict[str, object]]:
        self.requests.append((method, asked, authorization))
        scope = asked.get("scope", ["::"])[0].split(":")  # without one: a login
        if len(scope) != 3:
            return 400, {"details": "no scope"}
        if method == "POST":
            known = asked.get("grant_type") == ["refresh_token"] and asked.get("refresh_token") == [IDENTITY_TOKEN]
        else:
            known = authorization == basic(USERNAME, PASSWORD)
        if not known and (authorization or method == "POST" or not self.is_open):
            return 401, {"details": "unknown user"}
        token = self.sign(USERNAME if known else "", scope[1], ["pull"] if scope[1] else [])
        return 200, {"access_token" if method == "POST" else "token": token, "expires_in": self.life_s}


@contextlib.contextmanager
def run_token_server(root: Path) -> Iterator[TokenServer]:
    """A token server on a free loopback port; its certificate is the registry's rootcertbundle."""
    key, certificate = root / "token.key", root / "token.crt"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tests"]
    subprocess.run([*argv, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    tokens = TokenServer(certificate, key)

    class Handler(Quiet):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply(parse_qs(urlsplit(self.path).query))

        def do_POST(self) -> None:
            self._reply(parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()))

        def _reply(self, asked: dict[str, list[str]]) -> None:
            status, document = tokens.answer(self.command, asked, self.headers.get("Authorization", ""))
            self.answer(status, json.dumps(document).encode())

    with serving(Handler) as port:
        tokens.realm = f"http://127.0.0.1:{port}/token"
        yield tokens


def _url64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
