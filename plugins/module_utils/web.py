# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom a token or a password is for: one origin, which is scheme, host and port together, and nobody else.

This file is also copied to the node for the jobs: standard library only, and nothing of Ansible.
"""

from __future__ import annotations

import ssl
from typing import Any, Callable, Optional, Tuple
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit, urlunsplit

REDIRECTS = (301, 302, 303, 307, 308)
#: How many are followed before it counts as a circle.
MOST_REDIRECTS = 5
_PORTS = {"http": 80, "https": 443}


def origin(url: str) -> Tuple[str, str, Optional[int]]:
    """Scheme, host and port, with the port that the scheme stands for where none is written.

    Raises:
        ValueError: the port is none.
    """
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").rstrip("."), parts.port or _PORTS.get(scheme)


def same_origin(one: str, other: str) -> bool:
    """Whether what one may know is for the other too. An address that makes no sense is like no other."""
    try:
        return origin(one) == origin(other)
    except ValueError:
        return False


def without_password(url: str) -> str:
    """The address as it may be shown.

    >>> without_password("https://ada:secret@mirror.example.com/key.asc")
    'https://mirror.example.com/key.asc'
    """
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def cause(trouble: Exception) -> str:
    """Why an address gave nothing, without the forms in which Python wraps that.

    >>> cause(URLError(OSError(111, "Connection refused")))
    'Connection refused'
    """
    if isinstance(trouble, HTTPError):
        return f"it answers {trouble.code} {trouble.reason}".rstrip()
    inner = getattr(trouble, "reason", trouble)
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {inner.verify_message}"
    return str(getattr(inner, "strerror", None) or inner)


def following(open_url: Callable[..., Any]) -> Callable[..., Any]:
    """``open_url`` of ansible, which sends the address' user and password, or those of ``.netrc``, after a redirect
    wherever that leads. Here each address is asked for by itself, and from https none leads to plain http."""

    def ask(url: str, **options: Any) -> Any:
        for _redirect in range(MOST_REDIRECTS + 1):
            try:
                return open_url(url, follow_redirects="none", **options)
            except HTTPError as answer:
                location = answer.headers.get("Location") if answer.code in REDIRECTS else None
                if not location:
                    raise
                url = _next(url, location)
        raise URLError(f"it is redirected more than {MOST_REDIRECTS} times")

    return ask


def _next(url: str, location: str) -> str:
    there = urljoin(url, location)
    before, after = urlsplit(url), urlsplit(there)
    if after.scheme not in ("https", before.scheme) or after.scheme not in _PORTS:
        raise URLError(f"it is redirected from {before.scheme} to {without_password(there)}, which is not followed")
    if same_origin(url, there) and "@" in before.netloc and "@" not in after.netloc:
        return urlunsplit(after._replace(netloc=f"{before.netloc.rpartition('@')[0]}@{after.netloc}"))
    return there
