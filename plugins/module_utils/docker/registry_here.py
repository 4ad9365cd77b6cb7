# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the node's Docker knows about registries, whether it is installed already or not: see registry.py."""

from __future__ import annotations

import glob
import http.client
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
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple
from urllib.parse import urlsplit

from ..node import commands, files as node_files
from . import daemon as docker_daemon, daemon_file, registry as docker_registry

Runner = Callable[[Sequence[str]], Tuple[int, str, str]]

DAEMON = "/etc/docker/daemon.json"
CERTIFICATES = "/etc/docker/certs.d"
#: The role docker rewrites this file with the play's own setting.
OWN_PROXY = "/etc/docker/gpunode-proxy.env"
TIMEOUT_S = 15
LARGEST_ANSWER = 4 << 20


def docker(wanted: Mapping[str, Any], run: Runner) -> docker_registry.Docker:
    """The Docker that will pull.

    Args:
        wanted: ``config``, which is merged into daemon.json; ``proxy`` and ``ca_certificate``, as in the role docker.
        All may be missing.
    """
    config = daemon(wanted.get("config") or {})
    own = {kind: value for kind, value in (wanted.get("proxy") or {}).items() if value}
    proxies = own or daemon_proxies(config) or service_proxies(run)
    logins = client()
    return docker_registry.Docker(
        ask=asker(proxies, wanted.get("ca_certificate") or ""),
        config=config,
        login=lambda registry: docker_registry.login_in(logins, registry, lambda name, to: helped(run, name, to)),
    )


def daemon(wanted: Dict[str, Any]) -> Mapping[str, Any]:
    """daemon.json as it will be after the play. A merge error is reported by daemon_json, not here."""
    try:
        return docker_daemon.merge(daemon_file.read(DAEMON)[1], wanted)
    except ValueError:
        return wanted


def daemon_proxies(config: Mapping[str, Any]) -> Dict[str, str]:
    said = config.get("proxies") or {}
    found = {"http": said.get("http-proxy"), "https": said.get("https-proxy"), "no_proxy": said.get("no-proxy")}
    return {name: str(value) for name, value in found.items() if value}


def service_proxies(run: Runner) -> Dict[str, str]:
    """The proxies in the environment of Docker's service."""
    _rc, out, _err = run(commands.show(("Environment", "EnvironmentFiles"), "docker.service"))
    said: Dict[str, str] = {}
    for path in re.findall(r"^EnvironmentFiles=(\S+)", out, re.MULTILINE):
        if path != OWN_PROXY and os.path.isfile(path):
            said.update(pairs(node_files.text_of(path).splitlines()))
    for line in re.findall(r"^Environment=(.*)$", out, re.MULTILINE):
        said = {**pairs(words(line)), **said}
    found = {kind: said.get(f"{kind}_proxy", "") for kind in ("http", "https")}
    return {**found, "no_proxy": said.get("no_proxy", "")} if any(found.values()) else {}


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
        said = json.loads(node_files.read_text(os.path.join(pwd.getpwuid(0).pw_dir, ".docker", "config.json")))
        return said if isinstance(said, dict) else {}
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


def asker(
    proxies: Mapping[str, str], authority: str, sleep: Callable[[float], None] = time.sleep
) -> docker_registry.Ask:
    """Ask as Docker does; retry a transient error once."""

    def once(method: str, url: str, headers: Mapping[str, str], verified: bool) -> docker_registry.Answer:
        parts = urlsplit(url)
        proxy = docker_registry.proxy_for(url, proxies)
        try:
            secure = urllib.request.HTTPSHandler(context=context(parts.netloc, verified, authority))
            route = urllib.request.ProxyHandler({parts.scheme: proxy} if proxy else {})
            request = urllib.request.Request(url, headers={**headers, "User-Agent": "gpunode.llm"}, method=method)
            with urllib.request.build_opener(route, secure, _NoRedirect).open(request, timeout=TIMEOUT_S) as answer:
                return read(answer)
        except urllib.error.HTTPError as refusal:
            return read(refusal)
        except (OSError, ValueError, http.client.HTTPException) as trouble:
            return docker_registry.Answer(0, reason=reason(trouble))

    def ask(method: str, url: str, headers: Mapping[str, str], verified: bool) -> docker_registry.Answer:
        answer = once(method, url, headers, verified)
        if answer.status >= 500:
            sleep(2)
            answer = once(method, url, headers, verified)
        return answer

    return ask


def read(answer: Any) -> docker_registry.Answer:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return docker_registry.Answer(answer.getcode(), headers, answer.read(LARGEST_ANSWER))


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
