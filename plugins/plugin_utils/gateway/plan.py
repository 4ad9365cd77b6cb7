# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway: read and validate its settings, and work out what nginx serves."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ...module_utils import paths
from ...module_utils.instance import names as node_names
from ...module_utils.instance.record import gateway_text
from ...module_utils.node import network
from ..fleet import shared_address
from ..planner.catalog import near
from ..planner.request import LOOPBACK, whole_number
from ..values import typed
from .keys import NAME as _NAME

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\Z")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@+-]{0,254}\Z")
_ROUTE = re.compile(r"(GET|POST|PUT|PATCH|DELETE) (/[A-Za-z0-9_-]+(?:[./][A-Za-z0-9_-]+)*)\Z")
#: The gateway's health path.
HEALTH = "/health"


#: The routes of models that generate.
GENERATING = (("POST", "/v1/chat/completions"), ("POST", "/v1/completions"), ("GET", "/v1/models"))
#: Further routes of models that generate, by the name of their set.
ROUTE_SETS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "agents": (("POST", "/v1/responses"), ("POST", "/v1/messages"), ("POST", "/v1/messages/count_tokens")),
}
_SCORES = ("/v1/score", "/score", "/v1/rerank", "/rerank")
#: What vLLM offers for the other tasks, all by POST.
POOLING: Mapping[str, tuple[str, ...]] = {
    "embed": ("/v1/embeddings", *_SCORES),
    "rerank": (*_SCORES, "/classify"),
    "classify": ("/classify",),
    "pooling": ("/pooling",),
}


@dataclass(frozen=True)
class Settings:
    """The gateway's settings, with the defaults of the role."""

    host: str = "0.0.0.0"
    port: int = 443
    names: tuple[str, ...] = ()
    certificate: str = ""
    certificate_key: str = ""
    acme_email: str = ""
    routes: tuple[tuple[str, str], ...] = GENERATING
    route_sets: tuple[str, ...] = ()
    default_instance: str = ""
    #: For each further name of a model the models that it stands for, with their weights.
    aliases: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    max_body_mib: int = 20
    requests_per_second: int = 100
    burst: int = 200
    connections: int = 512
    read_timeout_s: int = 3600
    drain_timeout_s: int = 60
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    metrics_allow: tuple[str, ...] = ()
    config_dir: str = "/etc/gpunode/gateway"
    #: Whether engines count tokens by client: they are told whose a request is.
    usage: bool = False
    #: The addresses of the router's two processes, if this node has it: `first` and `second`. Where nginx does its
    #: work, `models` with the addresses of the engines by the instances' names. With a router elsewhere, `elsewhere`:
    #: engines then listen on an address that it reaches.
    router: Mapping[str, Any] = field(default_factory=dict)
    shared_address: str = ""
    shared_interface: str = ""
    shared_router_id: int = 51
    #: The hosts that share it, each with its own address, in the order of their priority.
    shared_peers: Mapping[str, str] = field(default_factory=dict)

    @property
    def generating(self) -> tuple[tuple[str, str], ...]:
        """The routes of a model that generates."""
        return tuple(dict.fromkeys((*self.routes, *(route for name in self.route_sets for route in ROUTE_SETS[name]))))

    @property
    def by_name(self) -> tuple[tuple[str, str], ...]:
        """The routes of models of every kind."""
        return self.generating if self.routes != GENERATING else (*self.generating, ("POST", "/v1/embeddings"))

    @property
    def routes_by_name(self) -> bool:
        """Whether the router of this node has /v1."""
        return "first" in self.router


def address(what: str, value: Any) -> str:
    """Read an address to listen on. Names are rejected: a name may resolve differently at the next start."""
    try:
        return paths.address(value)
    except ValueError:
        raise ValueError(f"{what} must be an address such as 0.0.0.0, not {value!r}.") from None


def path(what: str, value: Any) -> str:
    """Read a path. A dollar is rejected: it begins a variable in nginx's configuration."""
    text = str(value)
    if text and (not text.startswith("/") or "$" in text or _CONTROL.search(text)):
        raise ValueError(f"{what} must be an absolute path without dollars and control characters, not {value!r}.")
    return text


def listed(what: str, value: Any) -> Sequence[Any]:
    if isinstance(value, (list, tuple)):
        return value
    raise ValueError(f"{what} must be a list, not {value!r}.")


def names(value: Any) -> tuple[str, ...]:
    """Read the names and addresses that clients use for the gateway."""
    texts = tuple(str(name) for name in listed("gateway_names", value))
    for name in texts:
        if not _DNS_NAME.match(name) and not _is_address(name):
            raise ValueError(f"gateway_names holds {name!r}, which is neither a DNS name nor an address.")
    return texts


def _is_address(text: str) -> bool:
    try:
        paths.address(text)
    except ValueError:
        return False
    return True


def routes(value: Any) -> tuple[tuple[str, str], ...]:
    """Read the routes that the gateway passes on, each a method and a path."""
    pairs = []
    for route in listed("gateway_routes", value):
        match = _ROUTE.match(str(route))
        if not match:
            raise ValueError(
                f"gateway_routes holds {route!r}; a route is a method and a whole path, such as 'POST /v1/completions'."
            )
        if match[2] == HEALTH:
            raise ValueError(f"gateway_routes holds {route!r}, but {HEALTH} is the gateway's health path.")
        pairs.append((match[1], match[2]))
    if not pairs:
        raise ValueError("gateway_routes is empty, so nothing would pass. Leave it out for what clients usually need.")
    return tuple(dict.fromkeys(pairs))


def aliases(value: Any) -> dict[str, dict[str, int]]:
    """Read the further names of models: each stands for a model, or for several by their weights."""
    found: dict[str, dict[str, int]] = {}
    for name, models in value.items():
        shares = models if isinstance(models, Mapping) else {models: 1}
        for text in (name, *shares):
            if not _MODEL.match(str(text)):
                raise ValueError(f"gateway_aliases holds {text!r}, which is not a model's name.")
        what = f"The weight of a model in gateway_aliases[{str(name)!r}]"
        found[str(name)] = {str(model): whole_number(what, weight, 1, 1000) for model, weight in shares.items()}
    if any(not shares for shares in found.values()):
        raise ValueError("gateway_aliases holds a name that stands for no model.")
    return found


def networks(value: Any) -> tuple[str, ...]:
    allowed = []
    for entry in listed("gateway_metrics_allow", value):
        try:
            paths.address(str(entry).partition("/")[0])
            allowed.append(str(ipaddress.ip_network(str(entry))))
        except ValueError as error:
            raise ValueError(f"gateway_metrics_allow holds {entry!r}, which is not a network: {error}.") from None
    return tuple(allowed)


def plain_text(what: str, value: Any, form: re.Pattern[str], wanted: str) -> str:
    text = str(value)
    if text and not form.match(text):
        raise ValueError(f"{what} must be {wanted}, not {value!r}.")
    return text


def router(value: Any) -> Mapping[str, Any]:
    """Read where the router listens, which site.yml sets."""
    if not isinstance(value, Mapping) or not {*value} <= {"first", "second", "elsewhere", "models"}:
        raise ValueError(f"gateway_router must hold first and second, and not {value!r}. playbooks/site.yml sets it.")
    models = {str(name): [str(one) for one in listed] for name, listed in (value.get("models") or {}).items()}
    return {**value, "models": models} if "models" in value else {**value}


def _number(name: str, low: int, high: int) -> Callable[[Any], int]:
    return lambda value: whole_number(f"gateway_{name}", value, low, high)


#: How each setting is read.
READERS: dict[str, Callable[[Any], Any]] = {
    "host": lambda value: address("gateway_host", value),
    "port": _number("port", 1, 65535),
    "names": names,
    "certificate": lambda value: path("gateway_certificate", value),
    "certificate_key": lambda value: path("gateway_certificate_key", value),
    "acme_email": lambda value: plain_text(
        "gateway_acme_email", value, re.compile(r"[A-Za-z0-9._+-]+@[A-Za-z0-9.-]+\Z"), "a plain mail address"
    ),
    "routes": routes,
    "route_sets": tuple,
    "aliases": aliases,
    "default_instance": lambda value: plain_text("gateway_default_instance", value, _NAME, "an instance's name"),
    "max_body_mib": _number("max_body_mib", 1, 4096),
    "requests_per_second": _number("requests_per_second", 0, 100_000),
    "burst": _number("burst", 0, 100_000),
    "connections": _number("connections", 0, 65_000),
    "read_timeout_s": _number("read_timeout_s", 1, 86_400),
    "drain_timeout_s": _number("drain_timeout_s", 1, 86_400),
    "metrics_host": lambda value: address("gateway_metrics_host", value),
    "metrics_port": _number("metrics_port", 1, 65535),
    "metrics_allow": networks,
    "config_dir": lambda value: path("gateway_config_dir", value),
    "router": router,
    "shared_address": shared_address.address,
    "shared_interface": shared_address.interface,
    "shared_router_id": _number("shared_router_id", 1, 255),
    "shared_peers": shared_address.peers,
    "usage": bool,
}


def read(options: Mapping[str, Any]) -> tuple[Settings, list[str]]:
    """The settings, and a sentence for each that cannot be read and has its default instead."""
    findings: list[str] = []
    values: dict[str, Any] = {}
    for key, value in options.items():
        if key not in READERS:
            meant = near(key, READERS)
            findings.append(f"gateway_{key} is not a setting{f'; did you mean gateway_{meant[0]}?' if meant else '.'}")
        elif value is not None:
            try:
                values[key] = READERS[key](typed(f"gateway_{key}", value))
            except ValueError as error:
                findings.append(str(error))
    return Settings(**values), findings


def listen(host: str, port: int) -> str:
    """The value of nginx's listen. :: includes IPv4 addresses."""
    return f"{network.bracketed(host)}:{port}{' ipv6only=off' if host == '::' else ''}"


def _engine(instance: Mapping[str, Any]) -> str:
    return f"http://{_upstream(instance)}"


def _upstream(instance: Mapping[str, Any]) -> str:
    return f"engine-{instance['name']}"


def engines(instances: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The address of each engine, and the file in which its second instance, if there is one, adds itself."""
    rows = []
    for instance in instances:
        host = str(instance.get("host") or "127.0.0.1")
        rows.append(
            {
                "upstream": _upstream(instance),
                "address": f"{network.bracketed(host)}:{int(instance['port'])}",
                # With a star, nginx accepts that the file is missing.
                "second": f"{node_names.standby_file(str(instance['name']))}*",
            }
        )
    return rows


#: The upstream of the router.
ROUTER = "router"


def _fleet(settings: Settings, default: str) -> list[tuple[str, str]]:
    """The path prefixes of the fleet's models without a router, each with the name of its upstream."""
    models = list(settings.router.get("models") or ())
    root = default or (models[0] if len(models) == 1 else "")
    return [*((f"/{name}", name) for name in models), *([("", root)] if root in models else [])]


def _fleet_engines(settings: Settings) -> list[dict[str, Any]]:
    return [
        {"upstream": f"fleet-{name}", "servers": list(addresses)}
        for name, addresses in (settings.router.get("models") or {}).items()
    ]


def _by_name(settings: Settings) -> Sequence[tuple[str, str]]:
    """The routes at which the router chooses by the model's name."""
    if not settings.routes_by_name:
        return ()
    return settings.by_name


def _names(instance: Mapping[str, Any]) -> list[str]:
    """What a key may call the model of an instance."""
    names = (instance["name"], instance.get("served_model_name"), instance.get("model"))
    return list(dict.fromkeys(str(name) for name in names if name))


def _prefixes(instance: Mapping[str, Any], default: str) -> list[str]:
    """The path prefixes of an instance: its name, and the root for the default instance."""
    return [f"/{instance['name']}", *([""] if instance["name"] == default else [])]


def routes_of(settings: Settings, instance: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """The routes of an instance: those that the user lists, else those of its model's task."""
    if instance.get("task") not in POOLING:
        return settings.generating
    if settings.routes != GENERATING:
        return settings.routes
    return [("GET", "/v1/models"), *(("POST", path) for path in POOLING[str(instance["task"])])]


def locations(settings: Settings, instances: Sequence[Mapping[str, Any]], default: str) -> list[dict[str, Any]]:
    """Every path that the gateway passes on, with its methods and its engine."""
    places: dict[str, dict[str, Any]] = {}
    for method, route in _by_name(settings):
        place = {"path": route, "methods": [], "engine": f"http://{ROUTER}{route}", "router": True}
        places.setdefault(route, place)["methods"].append(method)
    for prefix, name in _fleet(settings, settings.default_instance):
        for method, route in settings.by_name:
            place = {"path": prefix + route, "methods": [], "engine": f"http://fleet-{name}{route}", "models": [name]}
            places.setdefault(prefix + route, place)["methods"].append(method)
    # Those of this node are among them.
    instances = [one for one in instances if one["name"] not in (settings.router.get("models") or {})]
    passes_to: dict[str, Mapping[str, Any]] = {}
    for instance in instances:
        for prefix in _prefixes(instance, default):
            for method, route in routes_of(settings, instance):
                place = {"path": prefix + route, "methods": [], "engine": _engine(instance) + route}
                place["models"] = _names(instance)
                entry = places.setdefault(prefix + route, place)
                if "router" in entry:
                    raise ValueError(f"The router has {prefix + route}, and so would {instance['name']}: rename it.")
                if passes_to.setdefault(prefix + route, instance) is not instance:
                    raise ValueError(f"Two instances would be reached at {prefix}{route}: rename one of them.")
                entry["methods"].append(method)
    return list(places.values())


def _metrics(settings: Settings, instances: Sequence[Mapping[str, Any]], default: str) -> dict[str, Any]:
    if settings.metrics_port is None:
        return {}
    places = {
        f"{prefix}/metrics": f"{_engine(instance)}/metrics"
        for instance in instances
        for prefix in _prefixes(instance, default)
    }
    return {
        "listen": listen(settings.metrics_host, settings.metrics_port),
        "allow": list(settings.metrics_allow),
        "locations": [{"path": place, "engine": engine} for place, engine in places.items()],
        "usage": node_names.USAGE_METRICS if settings.usage else "",
    }


def _overlap(address: tuple[str, int], other: tuple[str, int]) -> bool:
    """Whether two listening addresses conflict."""
    wide = ("0.0.0.0", "::")
    return address[1] == other[1] and (address[0] == other[0] or address[0] in wide or other[0] in wide)


def listens(settings: Settings) -> list[dict[str, Any]]:
    """Every address that the gateway listens on."""
    addresses = [(settings.host, settings.port)]
    if settings.metrics_port is not None:
        addresses.append((settings.metrics_host, settings.metrics_port))
    if settings.acme_email:
        addresses.append((settings.host, 80))
    return [{"host": host, "port": port} for host, port in addresses]


def _acme_names(settings: Settings) -> list[str]:
    return [name for name in settings.names if not _is_address(name)]


def _against(settings: Settings, instances: Sequence[Mapping[str, Any]]) -> list[str]:
    """Findings about settings that contradict each other."""
    findings = []
    if bool(settings.certificate) != bool(settings.certificate_key):
        findings.append("gateway_certificate and gateway_certificate_key must be set together.")
    if settings.acme_email and settings.certificate:
        findings.append("gateway_acme_email asks for a certificate and gateway_certificate names one. Set one of them.")
    if settings.acme_email and not _acme_names(settings):
        findings.append("ACME issues certificates for DNS names, and gateway_names holds none.")
    loopback = ipaddress.ip_address(settings.metrics_host).is_loopback
    if settings.metrics_port is not None and not loopback and not settings.metrics_allow:
        findings.append(
            f"Metrics would be open to everyone who can reach {settings.metrics_host}:{settings.metrics_port}. Set"
            " who may read them (gateway_metrics_allow), or keep gateway_metrics_host at 127.0.0.1."
        )
    return findings + _conflicts(settings, instances)


def _conflicts(settings: Settings, instances: Sequence[Mapping[str, Any]]) -> list[str]:
    """Findings about conflicts between the gateway and the engines."""
    findings = []
    mine = [(listener["host"], listener["port"]) for listener in listens(settings)]
    invalid = [str(instance["name"]) for instance in instances if not _NAME.match(str(instance["name"]))]
    findings += [
        f"{name!r} is not a valid name for an instance: use letters, digits, dots and dashes." for name in invalid
    ]
    for number, address in enumerate(mine):
        if any(_overlap(address, other) for other in mine[:number]):
            findings.append(f"The gateway would listen twice at port {address[1]}.")
    for instance in instances:
        host, port = str(instance.get("host") or "127.0.0.1"), int(instance["port"])
        if host not in LOOPBACK and not settings.router:
            findings.append(
                f"{instance['name']} listens on {host}:{port} itself, so clients can bypass the gateway."
                " Keep vllm_host at 127.0.0.1."
            )
        if any(_overlap(address, (host, port)) for address in mine):
            findings.append(f"The gateway and {instance['name']} both want port {port}.")
    known = [str(instance["name"]) for instance in instances]
    if settings.default_instance and settings.routes_by_name:
        findings.append("The router has /v1 for all models by their names, so leave out gateway_default_instance.")
    elif settings.default_instance and instances and settings.default_instance not in known:
        findings.append(f"gateway_default_instance is {settings.default_instance!r}; there is {', '.join(known)}.")
    return findings


def _sharing(settings: Settings, node: str) -> list[str]:
    """Findings about the address that this gateway shares with others."""
    found = shared_address.findings(
        settings.shared_address, settings.shared_interface, settings.shared_peers, node, settings.host
    )
    if settings.shared_address and settings.acme_email:
        found.append(
            "gateway_acme_email asks for a certificate on each host, and the authority reaches only the one that has"
            f" {settings.shared_address}. Set gateway_certificate."
        )
    return found


def _base_url(settings: Settings) -> str:
    """What clients are shown: the first of the names, or an address."""
    anywhere = settings.host in ("0.0.0.0", "::")
    shown = [*settings.names, settings.shared_address, "HOST" if anywhere else settings.host]
    first = next(filter(None, shown))
    return f"https://{network.bracketed(first)}{'' if settings.port == 443 else f':{settings.port}'}"


def _service(settings: Settings) -> dict[str, Any]:
    """The names and paths of its unit, and the path and text of its record."""
    return {
        "unit": node_names.GATEWAY_UNIT,
        "unit_path": f"{node_names.UNIT_DIR}/{node_names.GATEWAY_UNIT}",
        "run_dir": node_names.run_dir(node_names.GATEWAY_UNIT),
        "started_from": node_names.started_from(node_names.GATEWAY_UNIT),
        "record_path": node_names.GATEWAY_RECORD,
        "record": gateway_text(listens(settings)),
    }


def _urls(settings: Settings, instances: Sequence[Mapping[str, Any]], default: str) -> dict[str, str]:
    """The URL for clients, by what they get there."""
    base = _base_url(settings)
    return {
        **({"every model of the fleet": f"{base}/v1"} if settings.routes_by_name else {}),
        **{f"{name} of the fleet": f"{base}{prefix}/v1" for prefix, name in _fleet(settings, default)},
        **{str(instance["name"]): f"{base}{_prefixes(instance, default)[-1]}/v1" for instance in instances},
    }


def plan(
    options: Mapping[str, Any],
    instances: Sequence[Mapping[str, Any]],
    os_family: str = "Debian",
    node: str = "",
    default_interface: str = "",
) -> dict[str, Any]:
    """The plan of the gateway of a node; ``findings`` holds every problem."""
    settings, findings = read({**options, "shared_interface": options.get("shared_interface") or default_interface})
    if os_family != "Debian":
        findings.append(f"The gateway needs nginx as Debian and Ubuntu have it; this node's system is {os_family}'s.")
    findings += _against(settings, instances)
    findings += _sharing(settings, node)
    default = settings.default_instance or (str(instances[0]["name"]) if len(instances) == 1 else "")
    if settings.routes_by_name:
        default = ""
    try:
        places = locations(settings, instances, default)
    except ValueError as error:
        places, findings = [], [*findings, str(error)]
    made = not settings.certificate
    return {
        **asdict(settings),
        "findings": list(dict.fromkeys(findings)),
        "listens": listens(settings),
        "listen": listen(settings.host, settings.port),
        "listen_acme": listen(settings.host, 80) if settings.acme_email else "",
        "acme_names": _acme_names(settings),
        "made": made,
        "certificate": f"{settings.config_dir}/certificate.pem" if made else settings.certificate,
        "certificate_key": f"{settings.config_dir}/certificate.key" if made else settings.certificate_key,
        "engines": engines(instances),
        "fleet": _fleet_engines(settings),
        "locations": places,
        "metrics": _metrics(settings, instances, default),
        "shared": shared_address.plan(settings.shared_address, settings.shared_peers, node),
        **_service(settings),
        "urls": _urls(settings, instances, default),
    }
