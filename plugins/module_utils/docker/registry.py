# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a registry has an image: asks as Docker would, before anything is pulled.

Uses Docker's mirrors, logins, certificates and proxy; plain HTTP only where Docker would use it. Asks with HEAD, which
registries do not count as a pull. The index itself is read only for a rare architecture.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple
from urllib.parse import urlencode, urljoin, urlsplit

from .. import web
from . import image as docker_image, layout as docker_layout

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
    said = hint = ""
    method = "HEAD" if machine == "x86_64" else "GET"
    for origins, login in places(reference, docker):
        answer = first_answer(origins, method, reference, docker.ask, login)
        if answer.status in range(200, 300):
            return built_for(answer, image, machine)
        said = "" if login.unknown and answer.status in (401, 403) else line(answer)
        # Docker may have another way, such as containerd's list of hosts.
        hint = "" if answer.status else f" {UNREACHED}"
    return f"{docker_image.explain(image, [said]).sentence.rstrip('.')}.{hint}" if said else ""


@dataclass(frozen=True)
class Origin:
    """An address of a registry, and whether its certificate is verified."""

    url: str
    verified: bool = True


def places(reference: docker_image.Reference, docker: Docker) -> List[Tuple[List[Origin], Login]]:
    """The places that Docker asks in turn: the mirrors of its own registry, then the registry."""
    registry = reference.registry
    found = []
    if registry == HUB:
        for mirror in docker.config.get("registry-mirrors") or ():
            host = urlsplit(str(mirror)).netloc.rpartition("@")[2]
            found.append(([Origin(str(mirror).rstrip("/"), not insecure(host, docker.config))], docker.login(host)))
    host = HUB_HOST if registry == HUB else registry
    origins = [Origin(f"https://{host}")]
    if insecure(host, docker.config):
        origins = [Origin(f"https://{host}", False), Origin(f"http://{host}", False)]
    return [*found, (origins, docker.login(registry))]


def insecure(host: str, config: Mapping[str, Any]) -> bool:
    """Whether Docker accepts any certificate and plain HTTP: for listed hosts and for this machine itself."""
    name = urlsplit(f"//{host}").hostname or host
    if name == "localhost":
        return True
    listed = [str(one) for one in config.get("insecure-registries") or ()]
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
        said = json.loads(answer.body or b"{}")
        token = said.get("token") or said.get("access_token")
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
    said = {
        0: answer.reason,
        401: "unauthorized: authentication required",
        403: "denied: requested access to the resource is denied",
        404: "manifest unknown",
        429: "toomanyrequests",
    }
    busy = f"Service Unavailable ({answer.status})" if answer.status >= 500 else ""
    return said.get(answer.status, busy)


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
        said = helper(str(name), address)
        if said is None:
            return Login(unknown=True)
        user, secret = str(said.get("Username") or ""), str(said.get("Secret") or "")
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
