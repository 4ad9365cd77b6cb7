# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A certificate and its key: whether a server can use them, and the openssl commands for a self-signed one."""

from __future__ import annotations

import os
import re
import ssl
from typing import Callable, List, Sequence, Set, Tuple

from .. import paths

Runner = Callable[[List[str]], Tuple[int, str, str]]

#: Renew a self-signed certificate this long before it expires.
EARLY_S = 30 * 24 * 3600


def pair_trouble(certificate: str, key: str) -> str:
    """Why a server cannot use them; empty if it can."""
    for path in (certificate, key):
        if not os.path.isfile(path):
            return f"There is no file {path}"
    try:
        # With an encrypted key, a server would ask for a passphrase at every start.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: b"")
    except (ssl.SSLError, ValueError, OSError) as error:
        reason = getattr(error, "reason", None) or str(error)
        if reason == "KEY_VALUES_MISMATCH":
            return f"{key} is not the key of {certificate}"
        return f"{certificate} and {key} cannot be used together ({reason})"
    return ""


def ends_within(certificate: str, seconds: int, run: Runner) -> bool:
    """Whether it expires within so many seconds."""
    return run(["openssl", "x509", "-in", certificate, "-noout", "-checkend", str(seconds)])[0] != 0


def alternative_name(name: str) -> str:
    """A name in openssl's syntax."""
    try:
        return f"IP:{paths.address(name)}"
    except ValueError:
        return f"DNS:{name}"


def parse_names(shown: str) -> Set[str]:
    """The names that ``openssl x509 -ext subjectAltName`` printed, in openssl's syntax."""
    names = set()
    for kind, name in re.findall(r"(DNS|IP Address):([^,\s]+)", shown):
        names.add(f"DNS:{name}" if kind == "DNS" else alternative_name(name))
    return names


def names_of(certificate: str, run: Runner) -> Set[str]:
    """The names in a certificate, in openssl's syntax."""
    return parse_names(run(["openssl", "x509", "-in", certificate, "-noout", "-ext", "subjectAltName"])[1])


def dns_names(certificate: str, run: Runner) -> Set[str]:
    """The names in a certificate that are not addresses."""
    return {name[len("DNS:") :] for name in names_of(certificate, run) if name.startswith("DNS:")}


def self_signed_trouble(certificate: str, key: str, names: Sequence[str], run: Runner) -> str:
    """Why a self-signed certificate must be renewed; empty if it must not."""
    trouble = pair_trouble(certificate, key)
    if trouble:
        return trouble
    if ends_within(certificate, EARLY_S, run):
        return f"{certificate} ends within {EARLY_S // 86400} days"
    wanted = {alternative_name(name) for name in names}
    if names_of(certificate, run) != wanted:
        return f"{certificate} is for other names than {', '.join(sorted(wanted))}"
    return ""


def self_signed(certificate: str, key: str, names: Sequence[str], days: int) -> List[str]:
    """The command that creates one."""
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    # A subject may have 64 characters; clients use the alternative names.
    words += ["-subj", f"/CN={names[0][:64]}", "-days", str(days)]
    words += ["-addext", f"subjectAltName={','.join(alternative_name(name) for name in names)}"]
    return [*words, "-keyout", key, "-out", certificate]
