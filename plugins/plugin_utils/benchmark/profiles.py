# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runs of a benchmark: profiles of catalog/benchmarks.yml with what a user sets, checked before a measurement."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from ...module_utils.benchmark import load, run as benchmark_run
from ..planner.catalog import near
from ..planner.catalog_files import HOME, LOADER

Raw = Mapping[str, Any]
#: What a profile may have; the first ones it must have.
_NEEDED = ("prompt_tokens", "output_tokens", "concurrency", "headline")
_OTHERS = ("about", "prefix_tokens", "prefixes", "turns", "per_client", "least")
#: What a benchmark with the user's own requests is called, and how many of them are under way.
OWN, OWN_CONCURRENCY, OWN_HEADLINE = "own", (1, 4, 16, 64, 256), 16
GOALS = ("ttft_ms", "itl_ms")
#: The options of an action that makes runs of its own.
OPTIONS = benchmark_run.LOAD


@lru_cache(maxsize=1)
def catalog() -> dict[str, Any]:
    """The profiles that come with the collection."""
    text = (HOME / "benchmarks.yml").read_text(encoding="utf-8")
    profiles: dict[str, Any] = yaml.load(text, Loader=LOADER)["profiles"]
    return profiles


@lru_cache(maxsize=1)
def release() -> str:
    """The release of this collection: a checkout says it in one file, an installed collection in another."""
    manifest = HOME.parent / "MANIFEST.json"
    if manifest.exists():
        return str(json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"])
    return str(yaml.load((HOME.parent / "galaxy.yml").read_text(encoding="utf-8"), Loader=LOADER)["version"])


def runs(names: Sequence[str], settings: Raw, seed: int | None = None) -> list[dict[str, Any]]:
    """The runs of these profiles, in the form of the module benchmark.

    ``settings``: extra_profiles, concurrency, repeats, clients, goals and requests (a file of the user's own) A new
    seed is drawn unless one is given: the same requests again would find themselves in the prefix cache.

    Raises:
        ValueError: a profile or a setting is not valid; the sentence is for the user.
    """
    known = {**catalog(), **dict(settings.get("extra_profiles") or {})}
    goals = _goals(settings.get("goals") or {})
    rows = _rows(str(settings.get("requests") or ""))
    chosen = {name: _profile(name, known) for name in names}
    if rows:
        chosen[OWN] = {
            **{"about": "The user's own requests", "prompt_tokens": 0, "output_tokens": 1},
            **{"concurrency": list(OWN_CONCURRENCY), "headline": OWN_HEADLINE},
        }
    if not chosen:
        raise ValueError(f"benchmark_profiles names no profile; there are {', '.join(known)}.")
    return [_run(name, profile, settings, goals, rows if name == OWN else [], seed) for name, profile in chosen.items()]


def _run(name: str, profile: Raw, settings: Raw, goals: Raw, rows: list[str], seed: int | None) -> dict[str, Any]:
    concurrency = [_positive("benchmark_concurrency", one) for one in settings.get("concurrency") or ()]
    wanted = sorted(set(concurrency or profile["concurrency"]))
    headline = int(profile["headline"])
    return {
        "name": name,
        "profile": {key: value for key, value in profile.items() if key not in ("concurrency", "headline")},
        "concurrency": wanted,
        # Of a user's own sweep the last one, if the profile's is not in it.
        "headline": headline if headline in wanted else wanted[-1],
        "repeats": _positive("benchmark_repeats", settings.get("repeats") or 1),
        "per_client": int(profile.get("per_client") or 2),
        "least": int(profile.get("least") or 8),
        "clients": int(settings.get("clients") or 0),
        "seed": random.SystemRandom().randrange(1, 2**31) if seed is None else seed,
        "goals": dict(goals),
        "rows": rows,
    }


def _profile(name: str, known: Raw) -> Raw:
    if name not in known:
        meant = f" Did you mean {' or '.join(near(name, known))}?" if near(name, known) else ""
        raise ValueError(f"There is no benchmark profile {name!r}.{meant} There are {', '.join(known)}.")
    profile = known[name]
    if not isinstance(profile, Mapping):
        raise ValueError(f"The benchmark profile {name} must be a dictionary, as in catalog/benchmarks.yml.")
    missing = [key for key in _NEEDED if key not in profile]
    unknown = [key for key in profile if key not in (*_NEEDED, *_OTHERS)]
    if missing or unknown:
        what = (
            f"lacks {', '.join(missing)}" if missing else f"has {', '.join(map(repr, unknown))}, which it cannot have"
        )
        raise ValueError(f"The benchmark profile {name} {what}; catalog/benchmarks.yml says what each is.")
    return profile


def _rows(path: str) -> list[str]:
    if not path:
        return []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        load.read_rows(lines)
    except (OSError, UnicodeError, load.LoadError) as trouble:
        raise ValueError(f"The requests of {path} cannot be read: {trouble}") from None
    return lines


def _positive(what: str, value: Any) -> int:
    try:
        number = int(str(value))
    except ValueError:
        number = 0
    if number < 1:
        raise ValueError(f"{what} must be whole numbers of 1 or more, not {value!r}.")
    return number


def _goals(given: Raw) -> dict[str, float]:
    unknown = [name for name in given if name not in GOALS]
    if unknown:
        raise ValueError(f"benchmark_goals has {unknown[0]!r}; it can have {' and '.join(GOALS)}, in milliseconds.")
    goals = {}
    for name, value in given.items():
        try:
            goals[name] = float(str(value))
        except ValueError:
            goals[name] = 0.0
        if not goals[name] > 0:
            raise ValueError(f"benchmark_goals: {name} must be milliseconds above 0, not {value!r}.")
    return goals
