# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small authority that speaks ACME (RFC 8555) with http-01, as far as a client for one front needs it.

It checks what a real one checks: nonces, the signature of every request, that a challenge is answered under the name on
port 80, and that a request for a certificate is for the names of its order. Names are looked up in a table of its own.
It speaks plain HTTP, where a real one speaks HTTPS.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import http.client
import json
import secrets
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.x509.oid import NameOID

Answer = tuple[int, dict[str, str], Any]


def to_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def to_bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Refused(Exception):
    """``kind`` is the last part of RFC 8555's error type."""

    def __init__(self, kind: str, detail: str, status: int = 400) -> None:
        super().__init__(detail)
        self.kind, self.status = kind, status


def thumbprint(jwk: Mapping[str, str]) -> str:
    members = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y")}[jwk["kty"]]
    text = json.dumps({key: jwk[key] for key in members}, sort_keys=True, separators=(",", ":"))
    return to_text(hashlib.sha256(text.encode()).digest())


def verify(jwk: Mapping[str, str], signature: bytes, data: bytes) -> None:
    """Raises InvalidSignature."""

    def number(key: str) -> int:
        return int.from_bytes(to_bytes(jwk[key]), "big")

    if jwk["kty"] == "RSA":
        rsa.RSAPublicNumbers(number("e"), number("n")).public_key().verify(
            signature, data, padding.PKCS1v15(), hashes.SHA256()
        )
    else:
        r, s = (int.from_bytes(part, "big") for part in (signature[:32], signature[32:]))
        key = ec.EllipticCurvePublicNumbers(number("x"), number("y"), ec.SECP256R1()).public_key()
        key.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))


class Issuer:
    """The key that signs."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self.signed(self.name, self.key.public_key(), x509.BasicConstraints(True, 0))

    def signed(self, subject: x509.Name, key: Any, extension: x509.ExtensionType) -> x509.Certificate:
        now = datetime.datetime.now(datetime.timezone.utc)
        made = x509.CertificateBuilder(self.name, subject, key, x509.random_serial_number())
        made = made.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(90))
        return made.add_extension(extension, critical=False).sign(self.key, hashes.SHA256())

    def chain(self, csr: x509.CertificateSigningRequest) -> str:
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        leaf = self.signed(x509.Name([]), csr.public_key(), names)
        return "".join(part.public_bytes(serialization.Encoding.PEM).decode() for part in (leaf, self.certificate))


class Authority:
    """A server on a port of its own. ``names`` says where a name leads: (address, port)."""

    def __init__(self, name: str, names: Mapping[str, tuple[str, int]], host: str = "127.0.0.1") -> None:
        self.issuer, self.names = Issuer(name), dict(names)
        #: Of each account its key and its contact; of each certificate its names.
        self.accounts: list[dict[str, Any]] = []
        self.issued: list[list[str]] = []
        self.orders: list[dict[str, Any]] = []
        self.nonces: set[str] = set()
        authority = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                authority.serve(self)

            do_GET = do_HEAD = do_POST = answer

            def log_message(self, *_words: Any) -> None:
                pass

        self.server = ThreadingHTTPServer((host, 0), Handler)
        self.base = f"http://{host}:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self) -> Authority:
        return self

    def __exit__(self, *_why: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def directory(self) -> str:
        return f"{self.base}/directory"

    # -- requests ------------------------------------------------------------------------------------------------------
    def serve(self, request: BaseHTTPRequestHandler) -> None:
        try:
            status, headers, body = self.route(request)
        except Refused as no:
            problem = {"type": f"urn:ietf:params:acme:error:{no.kind}", "detail": str(no)}
            status, headers, body = no.status, {"Content-Type": "application/problem+json"}, problem
        nonce = secrets.token_urlsafe(16)
        self.nonces.add(nonce)
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        request.send_response(status)
        headers = {"Content-Type": "application/json", "Replay-Nonce": nonce, "Cache-Control": "no-store", **headers}
        for header, value in {**headers, "Content-Length": str(len(data))}.items():
            request.send_header(header, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(data)

    def route(self, request: BaseHTTPRequestHandler) -> Answer:
        _empty, what, *numbers = request.path.split("/")
        if what == "directory":
            places = {
                key: f"{self.base}/{key}" for key in ("newNonce", "newAccount", "newOrder", "revokeCert", "keyChange")
            }
            return 200, {}, {**places, "meta": {}}
        if what == "newNonce":
            return 200, {}, ""
        account, payload = self.signed(request)
        if what == "newAccount":
            return self.account(account, payload)
        if what == "newOrder":
            return self.order(payload)
        calls = {"account": self.update, "order": self.see, "authz": self.authz, "challenge": self.challenge}
        calls |= {"finalize": self.finalize, "certificate": self.certificate}
        if what not in calls:
            raise Refused("malformed", f"there is no {what}", 404)
        return calls[what](account, payload, *map(int, numbers))

    def signed(self, request: BaseHTTPRequestHandler) -> tuple[Mapping[str, str], Any]:
        """Whose request it is, by the key, and what it says; None where it only asks."""
        envelope = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        head = json.loads(to_bytes(envelope["protected"]))
        if head["nonce"] not in self.nonces:
            raise Refused("badNonce", "this nonce was not given, or was used")
        self.nonces.discard(head["nonce"])
        if head["url"] != self.base + request.path:
            raise Refused("unauthorized", f"signed for {head['url']}", 401)
        jwk = head.get("jwk") or self.accounts[int(head["kid"].rsplit("/", 1)[1])]["key"]
        try:
            verify(jwk, to_bytes(envelope["signature"]), f"{envelope['protected']}.{envelope['payload']}".encode())
        except Exception as error:
            raise Refused("malformed", f"the signature is wrong: {error!r}") from error
        return jwk, json.loads(to_bytes(envelope["payload"])) if envelope["payload"] else None

    # -- accounts, orders, challenges ----------------------------------------------------------------------------------
    def account(self, key: Mapping[str, str], payload: Mapping[str, Any]) -> Answer:
        known = [number for number, account in enumerate(self.accounts) if account["key"] == key]
        if not known:
            if payload.get("onlyReturnExisting"):
                raise Refused("accountDoesNotExist", "there is no such account")
            self.accounts.append({"key": key, "contact": payload.get("contact", [])})
        number = known[0] if known else len(self.accounts) - 1
        shown = {"status": "valid", "contact": self.accounts[number]["contact"]}
        return 200 if known else 201, {"Location": f"{self.base}/account/{number}"}, shown

    def update(self, _key: Any, payload: Any, number: int) -> Answer:
        self.accounts[number].update({"contact": payload["contact"]} if payload and "contact" in payload else {})
        return 200, {}, {"status": "valid", "contact": self.accounts[number]["contact"]}

    def order(self, payload: Mapping[str, Any]) -> Answer:
        names = [identifier["value"] for identifier in payload["identifiers"]]
        challenges = {name: {"token": secrets.token_urlsafe(24), "status": "pending"} for name in names}
        self.orders.append({"names": names, "challenges": challenges, "status": "pending", "chain": ""})
        number = len(self.orders) - 1
        return 201, {"Location": f"{self.base}/order/{number}"}, self.shown(number)

    def shown(self, number: int) -> dict[str, Any]:
        order = self.orders[number]
        states = {challenge["status"] for challenge in order["challenges"].values()}
        if order["status"] == "pending" and states != {"pending"}:
            order["status"] = "invalid" if "invalid" in states else "ready" if states == {"valid"} else "pending"
        order_page = {
            "status": order["status"],
            "identifiers": [{"type": "dns", "value": name} for name in order["names"]],
            "authorizations": [f"{self.base}/authz/{number}/{index}" for index in range(len(order["names"]))],
            "finalize": f"{self.base}/finalize/{number}",
        }
        return {**order_page, "certificate": f"{self.base}/certificate/{number}"} if order["chain"] else order_page

    def see(self, _key: Any, _payload: Any, number: int) -> Answer:
        return 200, {}, self.shown(number)

    def authz(self, _key: Any, _payload: Any, number: int, index: int) -> Answer:
        name = self.orders[number]["names"][index]
        challenge = self.orders[number]["challenges"][name]
        shown = {**challenge, "type": "http-01", "url": f"{self.base}/challenge/{number}/{index}"}
        return (
            200,
            {},
            {
                "status": challenge["status"],
                "identifier": {"type": "dns", "value": name},
                "challenges": [shown],
            },
        )

    def challenge(self, key: Mapping[str, str], _payload: Any, number: int, index: int) -> Answer:
        name = self.orders[number]["names"][index]
        challenge = self.orders[number]["challenges"][name]
        if challenge["status"] == "pending":
            wrong = self.challenge_answer(name, challenge["token"], f"{challenge['token']}.{thumbprint(key)}")
            challenge["status"] = "invalid" if wrong else "valid"
            if wrong:
                challenge["error"] = {"type": "urn:ietf:params:acme:error:unauthorized", "detail": wrong, "status": 403}
        up = {"Link": f'<{self.base}/authz/{number}/{index}>;rel="up"'}
        return 200, up, {**challenge, "type": "http-01", "url": f"{self.base}/challenge/{number}/{index}"}

    def challenge_answer(self, name: str, token: str, wanted: str) -> str:
        """What is wrong with what the name's port 80 answers; empty where nothing is."""
        if name not in self.names:
            return f"no address is known for {name}"
        connection = http.client.HTTPConnection(*self.names[name], timeout=10)
        try:
            connection.request("GET", f"/.well-known/acme-challenge/{token}", headers={"Host": name})
            answer = connection.getresponse()
            body = answer.read().decode(errors="replace").strip()
        except OSError as error:
            return f"{name} could not be asked: {error}"
        finally:
            connection.close()
        return "" if (answer.status, body) == (200, wanted) else f"{name} answered {answer.status}: {body[:80]}"

    def finalize(self, _key: Any, payload: Mapping[str, Any], number: int) -> Answer:
        order = self.orders[number]
        if self.shown(number)["status"] != "ready":
            raise Refused("orderNotReady", f"the order is {order['status']}", 403)
        csr = x509.load_der_x509_csr(to_bytes(payload["csr"]))
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if sorted(names.get_values_for_type(x509.DNSName)) != sorted(order["names"]) or not csr.is_signature_valid:
            raise Refused("badCSR", "the request is not for the names of the order")
        order.update(chain=self.issuer.chain(csr), status="valid")
        self.issued.append(sorted(order["names"]))
        return 200, {"Location": f"{self.base}/order/{number}"}, self.shown(number)

    def certificate(self, _key: Any, _payload: Any, number: int) -> Answer:
        return 200, {"Content-Type": "application/pem-certificate-chain"}, self.orders[number]["chain"]
