# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Made-up but plausible records of a benchmark and of a tune."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

SWEEP = (1, 16, 64, 256, 1000)
TAILS = {"mean": 1.05, "p1": 0.6, "p5": 0.7, "p10": 0.8, "p25": 0.9, "p50": 1.0, "p75": 1.15, "p90": 1.4, "p95": 1.6}


def percentiles(middle: float, tail: float) -> dict[str, float]:
    return {**{key: round(middle * by, 2) for key, by in TAILS.items()}, "p99": middle * tail, "max": middle * tail * 2}


def point(concurrency: int, repeat: int = 1, speed: float = 1.0, noise: float = 0.0, seed: int = 7) -> dict[str, Any]:
    """A point of an 8B model on one H100; ``noise`` is the standard deviation of every figure, as a share."""
    chance = random.Random(f"{seed} {concurrency} {repeat} {speed}")

    def about(value: float) -> float:
        return round(value * (1 + chance.gauss(0, noise)), 4)

    saturated = 155 * concurrency / (1 + concurrency * 155 / 8200)
    rate = about(saturated * speed)
    tpot = about(1000 * concurrency / saturated / speed)
    power = about(250 + 430 * saturated / 8200)
    return {
        **{"concurrency": concurrency, "repeat": repeat, "seed": seed + repeat, "requests": 1000, "completed": 1000},
        **{"failed": 0, "errors": [], "duration_s": 17.2, "input_tokens": 215000, "output_tokens": 128000},
        **{"output_tokens_per_s": rate, "total_tokens_per_s": rate * 2.68, "requests_per_s": rate / 128},
        "goodput_requests_per_s": None,
        "ttft_ms": percentiles(about((18 + concurrency * 1.1) / speed), 2.6),
        "tpot_ms": percentiles(tpot, 1.9),
        "itl_ms": percentiles(about(tpot * 0.95), 3.1),
        "e2e_ms": percentiles(about(tpot * 128), 1.5),
        **{"client_cpu_s": 12.1, "client_cpu_share": 0.35, "others": 0, "preemptions": 0, "cached_prompt_tokens": 0},
        **{"acceptance_rate": None, "power_w": {"mean": power, "max": power * 1.05}, "energy_j": power * 17.2},
        **{"tokens_per_joule": rate / power, "clock_sm_mhz": {"mean": 1755.0, "min": 1200}},
    }


def points(
    speed: float = 1.0, noise: float = 0.0, repeats: int = 3, sweep: Sequence[int] = SWEEP, seed: int = 7
) -> list[dict[str, Any]]:
    return [point(at, repeat, speed, noise, seed) for at in sweep for repeat in range(1, repeats + 1)]


GPU = {"name": "NVIDIA H100 80GB HBM3", "uuid": "GPU-1", "memory_gib": 79.6, "power_limit_w": 700.0}


def node(**more: Any) -> dict[str, Any]:
    return {
        **{"name": "gpu01", "cpu": "Intel(R) Xeon(R) Platinum 8480+", "cpus": 26, "kernel": "6.8.0-60-generic"},
        **{"driver": "580.159.04", "topology": "", "gpus": [{**GPU, "clock_sm_max_mhz": 1980}]},
        **more,
    }


def engine(**options: Any) -> dict[str, Any]:
    return {
        **{
            "name": "vllm",
            "version": "0.33.0",
            "image": "vllm/vllm-openai:v0.33.0",
            "image_digest": "sha256:" + "a" * 64,
        },
        **{"options": {"max-model-len": 131072, **options}, "env": {}},
    }


MODEL = {"repo_id": "meta-llama/Llama-3.1-8B-Instruct", "revision": "0e9e39f2", "served": "8b", "instance": "8b"}


def record(identity: str = "20261126T231500Z-8b-guide", **more: Any) -> dict[str, Any]:
    day = identity[:8]
    return {
        **{"schema": 1, "id": identity, "date": f"{day[:4]}-{day[4:6]}-{day[6:]}T23:15:00Z", "label": ""},
        "collection": "1.2.0",
        **{"node": node(), "engine": engine(), "model": dict(MODEL), "through": "loopback"},
        "profile": {"name": "guide", "description": "ShareGPT", "input_tokens": 215, "output_tokens": 128},
        **{"goals": {}, "client": {"program": "vllm bench serve 0.33.0", "processes": 4}, "quality": None},
        "points": points(),
        **more,
    }


def without_gpu(identity: str = "20261126T231500Z-tiny-guide", **more: Any) -> dict[str, Any]:
    bare = {"power_w": None, "energy_j": None, "tokens_per_joule": None, "clock_sm_mhz": None}
    return record(identity, node=node(gpus=[], driver=""), points=[{**one, **bare} for one in points(0.02)], **more)


def candidate(name: str, speed: float, **more: Any) -> dict[str, Any]:
    measured = points(speed, repeats=1, sweep=(256, 1000))
    options = dict([name.split("=")]) if "=" in name else {}
    return {
        **{"name": name, "options": options, "env": {}, "state": "measured", "why": "", "start_s": 61.2},
        **{"points": measured, "score": measured[-1]["output_tokens_per_s"], "quality": None, "wins": False},
        **more,
    }


def tune(**more: Any) -> dict[str, Any]:
    base, score = candidate("base", 1.0), {"task": "gsm8k", "questions": 200, "stderr": 0.03, "answers": "sha256:1"}
    return {
        **{"schema": 1, "id": "20261127T010000Z-8b-tune", "date": "2026-11-27T01:00:00Z", "objective": "throughput"},
        **{"goals": {}, "profile": "guide", "concurrency": 1000, "budget_minutes": 60, "collection": "1.2.0"},
        **{"ended": "complete", "node": node(), "engine": engine(), "model": dict(MODEL), "baseline": "base"},
        "best": "max-num-batched-tokens=16384",
        "candidates": [
            {**base, "quality": {**score, "score": 0.76}},
            candidate("max-num-batched-tokens=16384", 1.21, wins=True),
            candidate("max-num-seqs=2048", 1.02),
            candidate(
                "kv-cache-dtype=fp8", 1.11, quality={**score, "score": 0.52}, state="refused", why="worse answers"
            ),
            candidate("api-server-count=4", 1.0, points=[], score=None, state="failed", why="out of memory"),
        ],
        **more,
    }
