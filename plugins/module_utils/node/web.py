# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send a token or a password only to its own origin: scheme, host and port together.

This file is also copied to the node for the jobs: standard library only, no import of Ansible.
"""

from __future__ import annotations

import ssl
from typing import Any, Callable, Optional, Tuple
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit, urlunsplit

REDIRECTS = (301, 302, 303, 307, 308)
#: The number of redirects to follow before giving up.
MOST_REDIRECTS = 5
_PORTS = {"http": 80, "https": 443}


def origin(url: str) -> Tuple[str, str, Optional[int]]:
    """Scheme, host and port. A missing port is the scheme's default.

    Raises:
        ValueError: the port is invalid.
    """
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").rstrip("."), parts.port or _PORTS.get(scheme)


def same_origin(one: str, other: str) -> bool:
    """Whether both addresses have the same origin. An invalid address has none."""
    try:
        return origin(one) == origin(other)
    except ValueError:
        return False


def without_password(url: str) -> str:
    """The address without its password, for messages.

    >>> without_password("https://ada:secret@mirror.example.com/key.asc")
    'https://mirror.example.com/key.asc'
    """
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def cause(trouble: Exception) -> str:
    """Why a request failed, without Python's wrappers around the reason.

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
    """Wrap Ansible's ``open_url``, which after a redirect sends a password in the address or in ``.netrc`` to any host.

    The wrapper requests each address separately, and follows no redirect from https to http.
    """

    def ask(url: str, **options: Any) -> Any:
        for _redirect in range(MOST_REDIRECTS + 1):
            try:
                return open_url(url, follow_redirects="none", **options)
            except HTTPError as answer:
                location = answer.headers.get("Location") if answer.code in REDIRECTS else None
                if not location:
                    raise
                url = _next(url, location)
        raise URLError(f"it redirects more than {MOST_REDIRECTS} times")

    return ask


def _next(url: str, location: str) -> str:
    there = urljoin(url, location)
    before, after = urlsplit(url), urlsplit(there)
    if after.scheme not in ("https", before.scheme) or after.scheme not in _PORTS:
        raise URLError(f"it redirects from {before.scheme} to {without_password(there)}, which is not followed")
    if same_origin(url, there) and "@" in before.netloc and "@" not in after.netloc:
        return urlunsplit(after._replace(netloc=f"{before.netloc.rpartition('@')[0]}@{after.netloc}"))
    return there
