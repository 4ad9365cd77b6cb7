# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a registry has an image: asks as this node's Docker would, before anything is pulled.

Uses Docker's mirrors, logins, certificates and proxy, whether Docker is installed already or not; plain HTTP only where
Docker would use it. Asks with HEAD, which registries do not count as a pull. The index itself is read only for a rare
architecture.
"""

from __future__ import annotations

import base64
import glob
import http.client
import ipaddress
import json
import os
import pwd
import re
import shlex
import socket
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple
from urllib.parse import urlencode, urljoin, urlsplit

from ..node import commands, files as node_files, web
from . import daemon as docker_daemon, image as docker_image, layout as docker_layout

Runner = Callable[[Sequence[str]], Tuple[int, str, str]]

DAEMON = "/etc/docker/daemon.json"
CERTIFICATES = "/etc/docker/certs.d"
#: The role docker rewrites this file with the play's own setting.
OWN_PROXY = "/etc/docker/gpunode-proxy.env"
TIMEOUT_S = 15
LARGEST_ANSWER = 4 << 20

HUB = "docker.io"
#: The address of Docker's own registry, and the name of its login.
HUB_HOST, HUB_LOGIN = "registry-1.docker.io", "https://index.docker.io/v1/"
INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")


UNREACHED = "If Docker does reach it, skip this check with preflight_skip: [registry]."


@dataclass(frozen=True)
class Answer:
    """``status`` 0: no answer, ``reason`` says why."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    reason: str = ""


@dataclass(frozen=True)
class Login:
    """Docker's login for a registry. ``unknown``: a kind that only Docker can use."""

    user: str = ""
    password: str = ""
    unknown: bool = False

    def basic(self) -> Dict[str, str]:
        if not self.user:
            return {}
        return {"Authorization": "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()}


#: (method, address, headers, whether to verify the certificate) -> Answer. Follows no redirect.
Ask = Callable[[str, str, Mapping[str, str], bool], Answer]


@dataclass(frozen=True)
class Docker:
    """The settings that the node's Docker will have, and the function that sends requests."""

    ask: Ask
    config: Mapping[str, Any] = field(default_factory=dict)
    login: Callable[[str], Login] = lambda _registry: Login()


def finding(image: str, docker: Docker, machine: str) -> str:
    """Why a pull of this image would fail, in one sentence; empty if it would not, or if that is unknown."""
    reference = docker_image.parse_reference(image)
    problem = hint = ""
    method = "HEAD" if machine == "x86_64" else "GET"
    for origins, login in places(reference, docker):
        answer = first_answer(origins, method, reference, docker.ask, login)
        if answer.status in range(200, 300):
            return built_for(answer, image, machine)
        problem = "" if login.unknown and answer.status in (401, 403) else line(answer)
        # Docker may have another way, such as containerd's list of hosts.
        hint = "" if answer.status else f" {UNREACHED}"
    return f"{docker_image.explain(image, [problem]).sentence.rstrip('.')}.{hint}" if problem else ""


@dataclass(frozen=True)
class Origin:
    """An address of a registry, and whether its certificate is verified."""

    url: str
    verified: bool = True


def places(reference: docker_image.Reference, docker: Docker) -> List[Tuple[List[Origin], Login]]:
    """The places that Docker asks in turn: the mirrors of its own registry, then the registry."""
    registry = reference.registry
    mirrors = []
    if registry == HUB:
        for mirror in docker.config.get("registry-mirrors") or ():
            host = urlsplit(str(mirror)).netloc.rpartition("@")[2]
            mirrors.append(([Origin(str(mirror).rstrip("/"), not insecure(host, docker.config))], docker.login(host)))
    host = HUB_HOST if registry == HUB else registry
    origins = [Origin(f"https://{host}")]
    if insecure(host, docker.config):
        origins = [Origin(f"https://{host}", False), Origin(f"http://{host}", False)]
    return [*mirrors, (origins, docker.login(registry))]


def insecure(host: str, config: Mapping[str, Any]) -> bool:
    """Whether Docker accepts any certificate and plain HTTP: for listed hosts and for this machine itself."""
    name = urlsplit(f"//{host}").hostname or host
    if name == "localhost":
        return True
    listed = [str(entry) for entry in config.get("insecure-registries") or ()]
    return host in listed or any(within(name, network) for network in [*listed, "127.0.0.0/8", "::1/128"])


def within(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def path_of(reference: docker_image.Reference) -> str:
    """The repository's path in its registry. Docker's own registry has its official images below library."""
    name = reference.repository
    if name.startswith(f"{reference.registry}/"):
        name = name[len(reference.registry) + 1 :]
    return f"library/{name}" if reference.registry == HUB and "/" not in name else name


def first_answer(
    origins: Sequence[Origin], method: str, reference: docker_image.Reference, ask: Ask, login: Login
) -> Answer:
    """The first of the addresses that answers; if none does, the first error."""
    answers = []
    for origin in origins:
        url = f"{origin.url}/v2/{path_of(reference)}/manifests/{reference.digest or reference.tag}"
        answers.append(manifest(method, url, origin, ask, login))
        if answers[-1].status:
            return answers[-1]
    return answers[0]


def manifest(method: str, url: str, origin: Origin, ask: Ask, login: Login) -> Answer:
    """The manifest, or its headers, from the registry or from where it redirects."""
    headers = {"Accept": ", ".join((*INDEXES, *MANIFESTS))}
    answer = ask(method, url, headers, origin.verified)
    if answer.status == 401:
        headers.update(credentials(answer.headers.get("www-authenticate", ""), origin, ask, login))
        answer = ask(method, url, headers, origin.verified)
    for _turn in range(web.MOST_REDIRECTS):
        if answer.status not in web.REDIRECTS:
            break
        target = urljoin(url, answer.headers.get("location", ""))
        if urlsplit(target).scheme not in ("http", "https"):  # for example a local file
            break
        if not web.same_origin(target, url):
            headers.pop("Authorization", None)
        url = target
        answer = ask(method, url, headers, origin.verified)
    return answer


def credentials(challenge: str, origin: Origin, ask: Ask, login: Login) -> Dict[str, str]:
    """The header that a registry asks for, from Docker's login if there is one."""
    kind, _space, rest = challenge.partition(" ")
    if kind.lower() == "basic":
        return login.basic()
    given = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    realm = given.pop("realm", "")
    # Send a password only over TLS, or to a host that Docker was told to trust without TLS.
    if not realm.startswith("https://" if origin.verified else "http"):
        return {}
    query = {name: given[name] for name in ("service", "scope") if name in given}
    answer = ask("GET", f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}", login.basic(), origin.verified)
    try:
        body = json.loads(answer.body or b"{}")
        token = body.get("token") or body.get("access_token")
    except (ValueError, AttributeError):
        token = None
    return {"Authorization": f"Bearer {token}"} if token else {}


def built_for(answer: Answer, image: str, machine: str) -> str:
    """A sentence if an index has no image for this machine; empty if only headers are known."""
    try:
        docker_layout.choose(json.loads(answer.body or b"{}"), machine)
    except (ValueError, AttributeError, KeyError) as error:
        return f"{image} cannot run on this machine: {error}."
    return ""


def line(answer: Answer) -> str:
    """An answer in Docker's words, which image.explain understands; empty if the answer proves nothing."""
    texts = {
        0: answer.reason,
        401: "unauthorized: authentication required",
        403: "denied: requested access to the resource is denied",
        404: "manifest unknown",
        429: "toomanyrequests",
    }
    busy = f"Service Unavailable ({answer.status})" if answer.status >= 500 else ""
    return texts.get(answer.status, busy)


# -- Docker's own configuration ---------------------------------------------------------------------------------------
def login_in(
    config: Mapping[str, Any], registry: str, helper: Callable[[str, str], Optional[Mapping[str, Any]]]
) -> Login:
    """The login for a registry in Docker's ``config.json``.

    Args:
        helper: asks a credential helper, by its name, about an address; returns None if it has nothing.
    """
    address = HUB_LOGIN if registry == HUB else registry
    name = (config.get("credHelpers") or {}).get(address) or config.get("credsStore")
    if name:
        stored = helper(str(name), address)
        if stored is None:
            return Login(unknown=True)
        user, secret = str(stored.get("Username") or ""), str(stored.get("Secret") or "")
        return Login(unknown=True) if user == "<token>" else Login(user, secret)
    for key, entry in (config.get("auths") or {}).items():
        if key == address or re.sub(r"^https?://|/.*$", "", key) == registry:
            return _written(entry)
    return Login()


def _written(entry: Any) -> Login:
    try:
        user, _colon, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
    except (ValueError, KeyError, TypeError):  # an identity token, which only Docker can use
        return Login(unknown=True)
    return Login(user, password.rstrip("\0"), unknown=bool(entry.get("identitytoken")))


def proxy_for(url: str, proxies: Mapping[str, str]) -> str:
    """The proxy that Docker (written in Go) uses for an address; empty for none.

    Args:
        proxies: ``http``, ``https`` and ``no_proxy``, as in the role docker.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    if host == "localhost" or within(host, "127.0.0.0/8") or within(host, "::1/128"):
        return ""
    for entry in re.split(r"[,\s]+", str(proxies.get("no_proxy") or "")):
        name, _colon, only = entry.lower().partition(":") if entry.count(":") == 1 else (entry.lower(), "", "")
        bare = name[1:] if name.startswith("*.") else name
        if only and only != str(port):
            continue
        if name == "*" or within(host, name) or (name and (host == name or host.endswith("." + bare.lstrip(".")))):
            return ""
    return str(proxies.get(parts.scheme) or "")


def of_node(wanted: Mapping[str, Any], run: Runner) -> Docker:
    """The Docker that will pull.

    Args:
        wanted: ``config``, which is merged into daemon.json; ``proxy`` and ``ca_certificate``, as in the role docker.
        All may be missing.
    """
    config = daemon_config(wanted.get("config") or {})
    own = {kind: value for kind, value in (wanted.get("proxy") or {}).items() if value}
    proxies = own or daemon_proxies(config) or service_proxies(run)
    logins = client()
    return Docker(
        ask=asker(proxies, wanted.get("ca_certificate") or ""),
        config=config,
        login=lambda registry: login_in(logins, registry, lambda name, to: helped(run, name, to)),
    )


def daemon_config(wanted: Dict[str, Any]) -> Mapping[str, Any]:
    """daemon.json as it will be after the play. A merge error is reported by daemon_json, not here."""
    try:
        return docker_daemon.merge(docker_daemon.read(DAEMON)[1], wanted)
    except ValueError:
        return wanted


def daemon_proxies(config: Mapping[str, Any]) -> Dict[str, str]:
    given = config.get("proxies") or {}
    proxies = {"http": given.get("http-proxy"), "https": given.get("https-proxy"), "no_proxy": given.get("no-proxy")}
    return {name: str(value) for name, value in proxies.items() if value}


def service_proxies(run: Runner) -> Dict[str, str]:
    """The proxies in the environment of Docker's service."""
    _rc, out, _err = run(commands.show(("Environment", "EnvironmentFiles"), "docker.service"))
    environment: Dict[str, str] = {}
    for path in re.findall(r"^EnvironmentFiles=(\S+)", out, re.MULTILINE):
        if path != OWN_PROXY and os.path.isfile(path):
            environment.update(pairs(node_files.text_of(path).splitlines()))
    for line in re.findall(r"^Environment=(.*)$", out, re.MULTILINE):
        environment = {**pairs(words(line)), **environment}
    proxies = {kind: environment.get(f"{kind}_proxy", "") for kind in ("http", "https")}
    return {**proxies, "no_proxy": environment.get("no_proxy", "")} if any(proxies.values()) else {}


def words(line: str) -> Sequence[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def pairs(lines: Sequence[str]) -> Dict[str, str]:
    split = [line.strip().partition("=") for line in lines if "=" in line]
    return {name.lower(): value.strip("\"'") for name, _equals, value in split}


def client() -> Mapping[str, Any]:
    """The logins of root, who pulls."""
    try:
        config = json.loads(node_files.read_text(os.path.join(pwd.getpwuid(0).pw_dir, ".docker", "config.json")))
        return config if isinstance(config, dict) else {}
    except (OSError, ValueError):
        return {}


def helped(run: Runner, name: str, address: str) -> Optional[Mapping[str, Any]]:
    """The login from a credential helper, which reads the address from its standard input."""
    program = f"docker-credential-{name}"
    if not re.fullmatch(r"[\w.-]+", name):
        return None
    rc, out, _err = run(["sh", "-c", 'printf %s "$1" | "$0" get', program, address])
    try:
        return dict(json.loads(out)) if rc == 0 else None
    except ValueError:
        return None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_named: Any) -> None:
        return None


def context(host: str, verified: bool, authority: str) -> ssl.SSLContext:
    """Trust the system's certificates, the site's CA that is not installed yet, and Docker's CA for this host."""
    made = ssl.create_default_context()
    if not verified:
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if authority:
        made.load_verify_locations(cadata=authority)
    own = os.path.join(CERTIFICATES, glob.escape(host))
    for path in sorted(glob.glob(f"{own}/*.crt")):
        made.load_verify_locations(cafile=path)
    for path in sorted(glob.glob(f"{own}/*.cert")):
        made.load_cert_chain(path, f"{path[: -len('cert')]}key")
    return made


def asker(proxies: Mapping[str, str], authority: str, sleep: Callable[[float], None] = time.sleep) -> Ask:
    """Ask as Docker does; retry a transient error once."""

    def once(method: str, url: str, headers: Mapping[str, str], verified: bool) -> Answer:
        parts = urlsplit(url)
        proxy = proxy_for(url, proxies)
        try:
            secure = urllib.request.HTTPSHandler(context=context(parts.netloc, verified, authority))
            route = urllib.request.ProxyHandler({parts.scheme: proxy} if proxy else {})
            request = urllib.request.Request(url, headers={**headers, "User-Agent": "gpunode.llm"}, method=method)
            with urllib.request.build_opener(route, secure, _NoRedirect).open(request, timeout=TIMEOUT_S) as answer:
                return read(answer)
        except urllib.error.HTTPError as refusal:
            return read(refusal)
        except (OSError, ValueError, http.client.HTTPException) as trouble:
            return Answer(0, reason=reason(trouble))

    def ask(method: str, url: str, headers: Mapping[str, str], verified: bool) -> Answer:
        answer = once(method, url, headers, verified)
        if answer.status >= 500:
            sleep(2)
            answer = once(method, url, headers, verified)
        return answer

    return ask


def read(answer: Any) -> Answer:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return Answer(answer.getcode(), headers, answer.read(LARGEST_ANSWER))


def reason(trouble: Exception) -> str:
    """The error in Docker's words, so that one table of causes is enough."""
    inner = getattr(trouble, "reason", trouble)
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"x509: {inner.verify_message}"
    if isinstance(inner, ssl.SSLError) and "WRONG_VERSION_NUMBER" in str(inner):
        return "server gave HTTP response to HTTPS client"
    if isinstance(inner, socket.gaierror):
        return f"no such host: {inner.strerror}"
    return f"dial tcp: {inner}"
