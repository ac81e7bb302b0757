"""One question to one endpoint: scheme, redirects, authentication.

HTTPS first; plain HTTP only for an endpoint marked insecure and only after HTTPS gave no answer. Each hop of a redirect gets
fresh headers; credentials stay with the origin they are for. A 401 is answered once, with what its challenge wants.

Source: OCI distribution-spec v1.1, section Pull and section Authentication.
"""

import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

import msgspec
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from criollo.errors import Invalid, Unauthenticated, Unavailable
from criollo.registry import auth, redirects
from criollo.registry.answers import GIVE, Question, error_text, refuse, refuse_token, wait_s
from criollo.registry.auth import Challenge, Credentials
from criollo.registry.connections import CHUNK_BYTES, Body, Connections, Limits, NoTls, Retryable, Unreachable, broken, current
from criollo.registry.endpoints import NO_TLS, Endpoint, Tls
from criollo.registry.hosts import Hosts
from criollo.registry.logins import Logins
from criollo.registry.redirects import Origin, next_hop, origin
from criollo.registry.turnstile import Turnstiles
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_MAX_ERROR_BYTES: Final = 64 << 10
_CLIENT_ID: Final = "criollo"
_MAX_REMEMBERED: Final = 256
_TOKEN_MARGIN_S: Final = 5

_Key = tuple[str, tuple[str, ...], Credentials | None]  # of what a token is good for: origin, scopes, whose


class _Permit(msgspec.Struct, frozen=True):
    """An Authorization header and until when (monotonic seconds) it is good."""

    header: str
    until: float

    def __repr__(self) -> str:
        return "_Permit(***)"


class Exchange:
    """Asks, and remembers what it learnt: which scheme a host speaks, and tokens (host, repository, credentials)."""

    def __init__(
        self, hosts: Hosts, connections: Connections, *, limits: Limits, user_agent: str, logins: Logins | None = None
    ) -> None:
        self.hosts, self._connections, self._limits = hosts, connections, limits
        self.logins = logins or Logins()
        self._turnstiles = Turnstiles(limits)
        self._headers = {"User-Agent": user_agent, "Accept-Encoding": "identity"}
        self._schemes: dict[str, str] = {}
        self._permits: dict[_Key, _Permit] = {}

    def ask(self, question: Question) -> BaseHTTPResponse:
        """The answer, of a status that the question expects, with its body unread; its `url` is where it came from.

        Raises:
            NotFound, Unauthenticated, Forbidden: the registry says so.
            Retryable: it is out of reach, overloaded or failing.
            Unavailable: anything else that is no answer.
        """
        endpoint = question.endpoint
        if question.credentials is None:
            found = (question.logins or self.logins).find(endpoint, current())
            question = msgspec.structs.replace(question, credentials=found)
        answer = self._by_scheme(question)
        if answer.status not in question.expects:
            refuse(answer, question, self._error_text(answer))
        return answer

    def read(self, answer: BaseHTTPResponse, limit_bytes: int, *, what: str, host: str) -> bytes:
        """The whole of a small body.

        Raises:
            Invalid: longer than the limit.
            Retryable: it broke off or took too long.
        """
        deadline = time.monotonic() + self._limits.document_s
        body = bytearray()
        try:
            while chunk := answer.read1(CHUNK_BYTES):
                body += chunk
                current().arrived()
                if len(body) > limit_bytes:
                    raise Invalid(what, f"over {limit_bytes} bytes from {host}", f"at most {limit_bytes} bytes")
                if time.monotonic() > deadline:
                    raise Retryable(f"cannot fetch from registry {host}: {what} took over {self._limits.document_s:g} s")
        except (HTTPError, OSError) as error:
            answer.close()
            raise broken(error, host, self._limits) from error
        except BaseException:
            answer.close()
            raise
        answer.release_conn()
        return bytes(body)

    def _by_scheme(self, question: Question) -> BaseHTTPResponse:
        endpoint = question.endpoint
        known = self._schemes.get(endpoint.api_host)
        schemes = (known,) if known in endpoint.schemes else endpoint.schemes
        if question.url:
            schemes = (origin(question.url).scheme,)
        for scheme in schemes:
            try:
                answer = self._authorized(question, scheme)
            except (Unreachable, NoTls):
                self._schemes.pop(endpoint.api_host, None)
                if scheme == schemes[-1]:
                    raise
            else:
                if endpoint.is_insecure:
                    self._schemes[endpoint.api_host] = scheme
                return answer
        raise AssertionError("no scheme was tried")

    def _authorized(self, question: Question, scheme: str) -> BaseHTTPResponse:
        endpoint = question.endpoint
        home = f"{scheme}://{endpoint.api_host}"
        url = question.url or f"{home}{question.target}"
        key = (home, question.scopes, question.credentials)
        is_home = origin(url) == origin(f"{home}/")
        shown = self._known(key) if is_home else ""
        answer, last = self._follow(url, question, shown)
        if answer.status == 401 and self._known(key) not in ("", shown):  # another transfer has a newer one by now
            self._finish(answer)
            answer, last = self._follow(url, question, self._known(key))
        if answer.status != 401:
            return answer
        self._finish(answer)
        if not is_home or origin(last) != origin(url):
            raise Unavailable(
                f"cannot fetch from registry {endpoint.api_host}: {origin(last).netloc}, to which it redirects, wants "
                "credentials; none are given to another host"
            )
        self._permits.pop(key, None)
        permit = self._permit(question, origin(url), answer)
        self._remember(key, permit)
        return self._follow(url, question, permit.header)[0]

    def _known(self, key: _Key) -> str:
        credentials = key[2]
        if credentials is not None and credentials.registry_token:
            return f"Bearer {credentials.registry_token}"
        permit = self._permits.get(key)
        return permit.header if permit is not None and permit.until > time.monotonic() else ""

    def _remember(self, key: _Key, permit: _Permit) -> None:
        if len(self._permits) >= _MAX_REMEMBERED:
            self._permits.clear()
        self._permits[key] = permit

    def _follow(self, url: str, question: Question, permit: str) -> tuple[BaseHTTPResponse, str]:
        """The answer after at most ten redirects, and the URL it came from."""
        home = origin(url)
        for _ in range(redirects.MAX_HOPS + 1):
            here = origin(url)
            permit = permit if here == home else ""
            answer = self._send(url, question, {"Authorization": permit} if permit else {})
            if answer.status not in redirects.STATUSES:
                return answer, url
            location = answer.headers.get("Location", "")
            self._finish(answer)
            url = next_hop(url, location, may_be_plain=lambda there: self._is_insecure(there, question.endpoint))
        raise Unavailable(f"cannot fetch from registry {home.netloc}: over {redirects.MAX_HOPS} redirects")

    def _send(self, url: str, question: Question, headers: Mapping[str, str], body: bytes | None = None) -> BaseHTTPResponse:
        """One request, when it is its turn. What belongs to the endpoint's own server goes nowhere else."""
        here, endpoint = origin(url), question.endpoint
        is_home = here == origin(f"{here.scheme}://{endpoint.api_host}/")
        own = dict(endpoint.headers) if is_home else {}
        sent: bytes | Body | None = body if body is not None else question.body
        length = {}
        if body is None and question.body is not None:
            question.body.rewind()
            length = {"Content-Length": str(question.body.size)}
        turnstile = self._turnstiles.of(here.netloc, question.credentials if is_home else None)
        with turnstile.passing(current(), may_wait=not endpoint.is_mirror) as passage:
            answer = self._connections.request(
                question.method if body is None else "POST",
                url,
                headers={**self._headers, **own, **question.headers, **headers, **length},
                insecure=self._is_insecure(here, endpoint),
                body=sent,
                tls=self._tls(here, endpoint, is_home=is_home),
                connect_s=endpoint.dial_s if is_home else 0,
            )
            if answer.status == 429:
                passage.refused(wait_s(answer))
        return answer

    def _tls(self, here: Origin, endpoint: Endpoint, *, is_home: bool) -> Tls:
        """Token servers and redirects may be known by the authorities of the server that named them; our certificate is not
        shown to them."""
        own = endpoint.tls if endpoint.tls != NO_TLS else self.hosts.tls(endpoint.host)
        if is_home:
            return own
        there = self.hosts.tls(here.netloc)
        return msgspec.structs.replace(there, authorities=tuple(dict.fromkeys((*there.authorities, *own.authorities))))

    def _is_insecure(self, there: Origin, endpoint: Endpoint) -> bool:
        """The line of the files that led to an endpoint decides for its server, whatever others say of the same host."""
        if endpoint.is_insecure and there.host == _host_of(endpoint):
            return True
        if there == origin(f"{there.scheme}://{endpoint.api_host}/"):
            return False
        return self.hosts.is_insecure(there.netloc)

    def _permit(self, question: Question, home: Origin, answer: BaseHTTPResponse) -> _Permit:
        """What the 401's challenge wants, if we have it."""
        endpoint, credentials = question.endpoint, question.credentials
        challenge = auth.choose(auth.parse_challenges(answer.headers.getlist("WWW-Authenticate")))
        if challenge is None:
            raise Unauthenticated(
                f"registry {endpoint.api_host} refuses {endpoint.name} and says no way to log in that we know"
            )
        if credentials is not None and credentials.registry_token:
            raise Unauthenticated(f"registry {endpoint.api_host} refuses the registry token for {endpoint.name}; get a new one")
        if challenge.scheme == "bearer":
            token = self._token(challenge, question, home)
            return _Permit(f"Bearer {token.value}", time.monotonic() + token.life_s - _TOKEN_MARGIN_S)
        if credentials is None or not credentials.has_password:
            raise Unauthenticated(f"registry {endpoint.api_host} wants a user and password for {endpoint.name}; {GIVE}")
        return _Permit(credentials.basic_header(), time.monotonic() + 3600)

    def _token(self, challenge: Challenge, question: Question, home: Origin) -> auth.Token:
        """Ask the token server that the challenge names.

        Source: distribution's token specification; its OAuth2 form for identity tokens.
        """
        realm, server = self._realm(challenge, question.endpoint, home)
        credentials = question.credentials
        service = challenge.parameters.get("service", "")
        asked: list[tuple[str, str]] = [("service", service)] if service else []
        plain = Question(endpoint=question.endpoint, path="", credentials=credentials)
        if credentials is not None and credentials.identity_token:
            form = dict(asked)
            form |= {"scope": " ".join(question.scopes), "grant_type": "refresh_token"}
            form |= {"client_id": _CLIENT_ID, "refresh_token": credentials.identity_token}
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = self._send(realm, plain, headers, urlencode(form).encode())
        else:
            asked += [("scope", scope) for scope in question.scopes]
            basic = credentials.basic_header() if credentials is not None and credentials.has_password else ""
            if credentials is not None and credentials.username:
                asked.append(("account", credentials.username))
            url = realm + ("&" if "?" in realm else "?") + urlencode(asked)
            answer, _ = self._follow(url, plain, basic)
        if answer.status != 200:
            refuse_token(answer, question, server.netloc, self._error_text(answer))
        return auth.parse_token(
            self.read(answer, auth.MAX_TOKEN_BYTES, what="token", host=server.netloc), realm_host=server.netloc
        )

    def _realm(self, challenge: Challenge, endpoint: Endpoint, home: Origin) -> tuple[str, Origin]:
        """The token server's URL, if it may be asked at all."""
        realm = challenge.parameters["realm"].partition("#")[0]
        try:
            server = origin(realm)
        except ValueError:
            raise Unauthenticated(f"registry {home.netloc} names a token server that is no http or https URL") from None
        is_plain = server.scheme == "http"
        if is_plain and (home.scheme == "https" or not self._is_insecure(server, endpoint)):
            raise Unauthenticated(
                f"registry {home.netloc} names the token server {server.netloc} over plain HTTP; nothing is sent there unless "
                "registries.conf marks both as insecure"
            )
        if server.host != home.host:
            log.debug("token server is another host", registry=home.netloc, realm=server.netloc)
        return realm, server

    def _error_text(self, answer: BaseHTTPResponse) -> str:
        try:
            return error_text(self.read(answer, _MAX_ERROR_BYTES, what="error text", host=""))
        except (Invalid, Retryable):
            return ""

    def _finish(self, answer: BaseHTTPResponse) -> None:
        """Done with an answer whose body does not matter: a short one is read so that the connection can serve on."""
        length = answer.headers.get("Content-Length", "")
        if answer.status == 401 and length.isascii() and length.isdecimal() and int(length[:9]) <= _MAX_ERROR_BYTES:
            self._error_text(answer)
        else:
            answer.close()


def _host_of(endpoint: Endpoint) -> str:
    return origin(f"https://{endpoint.api_host}/").host
