# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The job that benchmarks or tunes an instance: ``python -m ….module_utils.benchmark FOLDER``, with ``job.json`` in it.

It is a unit of its own on the node, so a lost controller does not end it. Its result is kept below ``job["results"]``.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from dataclasses import asdict
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ..node import commands, files as node_files
from ..node.schema import SCHEMA, number_of
from . import measure as benchmark_measure, quality as benchmark_quality, search, trial as benchmark_trial
from .measure import BenchmarkError, Measurement, Target
from .quality import Endpoint, Harness, Index, Quality, QualityError
from .trial import Switch, Trial, TrialError


class Interrupted(Exception):
    """Somebody started the instance itself. The message is for the user."""


class Job:
    """A benchmark or a tune. Tests give it another runner and another measurement."""

    def __init__(self, folder: str, plain: Mapping[str, Any], clock: Callable[[], float] = time.time) -> None:
        self.folder, self.plain, self.clock = folder, plain, clock
        self.run = commands.runner(dict(os.environ))
        self.docker = str(plain["docker"])
        self.started = clock()
        self.results: List[str] = []
        self.measurement = Measurement(self.run, self.docker, folder, self.tell)

    @property
    def whose(self) -> str:
        """The node and the instance, as parts of a file's name on the controller."""
        return re.sub(r"[^A-Za-z0-9.-]+", "-", f"{self.plain['host']}-{self.plain['name']}").strip("-.")

    def tell(self, line: str) -> None:
        """Say how far it is, to the journal and to the module that waits."""
        self.status(line=line)
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    def status(self, **fields: Any) -> None:
        """Say it to the module alone."""
        node_files.write_atomically(os.path.join(self.folder, "status.json"), json.dumps(fields))

    def benchmark(self) -> None:
        """Measure what is served, and keep one record of each run."""
        target = Target(**self.plain["target"])
        requests = benchmark_measure.busy(benchmark_measure.look(target))
        if requests and not self.plain["busy"]:
            raise BenchmarkError(
                f"{target.container} has {requests} requests of its clients, which a benchmark would slow down: try"
                " again when it is idle, or with -e benchmark_busy=true."
            )
        key = benchmark_measure.key_of(target, self.secret())
        runs = self.plain["runs"]
        done = self.measurement.points(target, runs, key)
        quality = self.quality(target)
        for run, points in zip(runs, done["points"]):
            self.keep({**self.about(target, done["engine"]), **self.of_run(run), "quality": quality, "points": points})

    def secret(self) -> Optional[str]:
        """The key of the gateway, which is gone from the disk once it has been read."""
        path = os.path.join(self.folder, "secret")
        if not os.path.exists(path):
            return None
        try:
            return node_files.read_text(path).strip()
        finally:
            os.unlink(path)

    def about(self, target: Target, engine: Mapping[str, Any]) -> Dict[str, Any]:
        """The provenance of a record, as far as no run of it differs."""
        digest = benchmark_measure.image_of(self.run, self.docker, target.image)
        environment = self.plain["environment"]
        served = {"name": "vllm", "version": engine["version"], "image": target.image, "image_digest": digest}
        return {
            "schema": SCHEMA,
            "label": self.plain["label"],
            "collection": self.plain["collection"],
            "node": benchmark_measure.node(self.run, target.gpus, self.plain["host"]),
            "engine": {**served, "options": engine["options"], "env": environment},
            "model": self.plain["model"],
            "through": "front" if target.base_url else "loopback",
            "client": {"program": f"vllm bench serve {engine['version']}"},
        }

    def of_run(self, run: Mapping[str, Any]) -> Dict[str, Any]:
        """What differs between the records of a benchmark."""
        moment = time.gmtime(self.clock())
        profile = {"name": run["name"], **run["profile"], "headline": run["headline"]}
        return {
            "id": f"{time.strftime('%Y%m%dT%H%M%SZ', moment)}-{self.whose}-{run['name']}",
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", moment),
            "profile": profile,
            "goals": run["goals"],
        }

    def keep(self, record: Mapping[str, Any]) -> None:
        """Keep a result on the node, and list it for the module."""
        path = os.path.join(self.plain["results"], f"{record['id']}.json")
        node_files.write_atomically(path, json.dumps(record, indent=1) + "\n")
        self.found(path)

    def found(self, path: str) -> None:
        """Name a result to the module."""
        self.results.append(path)
        node_files.write_atomically(os.path.join(self.folder, "results"), "".join(f"{one}\n" for one in self.results))

    def quality(self, target: Target) -> Optional[Dict[str, Any]]:
        """How well what is served answers the fixed questions; None if they are not asked."""
        asked = self.plain["quality"]
        if not asked:
            return None
        files = {"requirements": asked["requirements"], "questions": asked["questions"]}
        harness = Harness(target.image, docker=self.docker, shots=asked["shots"], **files)
        key = benchmark_measure.key_of(target, None)
        env_file = os.path.join(self.folder, "questions.env") if key else ""
        if key:
            node_files.write_atomically(env_file, f"OPENAI_API_KEY={key}\n", mode=0o600)
        try:
            benchmark_quality.prepare(self.run, harness, Index(**asked["index"]), self.tell)
            self.tell("asking the questions")
            endpoint = Endpoint(target.engine_url, target.served, env_file)
            return asdict(benchmark_quality.measure(self.run, harness, endpoint, os.path.join(self.folder, "answers")))
        finally:
            benchmark_quality.stop(self.run, harness)
            if key:
                os.unlink(env_file)


class Tune(Job):
    """Tries candidates within its minutes, and puts what served before back."""

    def __init__(self, folder: str, plain: Mapping[str, Any], clock: Callable[[], float] = time.time) -> None:
        super().__init__(folder, plain, clock)
        self.axes = search.choices_from(plain["axes"])
        self.target, self.trial = Target(**plain["target"]), Trial(**plain["trial"])
        self.path = os.path.join(plain["results"], f"{plain['name']}-tune.json")
        self.version = ""
        #: How the last candidate came out. In one line with what comes next, or no play would ever see it.
        self.came_out = ""
        self.node: Dict[str, Any] = {}
        self.previous: Mapping[str, str] = plain["previous"]
        self.kept: Dict[str, Any] = self.earlier()

    def earlier(self) -> Dict[str, Any]:
        """The candidates of a tune of the same question that was cut off."""
        try:
            kept = json.loads(node_files.read_text(self.path))
        except (OSError, ValueError):
            return {}
        if not isinstance(kept, dict) or number_of(kept) != SCHEMA:
            return {}
        rows: Dict[str, Any] = {row["name"]: row for row in kept["candidates"]}
        # A tune that came to its end is begun anew; the best of it is measured first.
        if kept["question"] != self.plain["question"] or kept["ended"] == "complete":
            self.previous = self.previous or rows.get(kept["best"], {}).get("choices", {})
            return {}
        self.previous, self.version = kept["previous"], kept["engine"]["version"]
        return rows

    def outcomes(self) -> Dict[str, search.Outcome]:
        """How the candidates came out so far, by their names."""
        return {name: search.Outcome(name, row["state"], row["scores"]) for name, row in self.kept.items()}

    def tune(self) -> None:
        """Measure one candidate after the other, until all were, or the minutes are over."""
        ended = "complete"
        # Before a candidate sets a power limit.
        self.node = benchmark_measure.node(self.run, self.target.gpus, self.plain["host"])
        switch = Switch(self.run, self.trial, self.folder)
        for candidate in iter(lambda: search.following(self.axes, self.outcomes(), self.previous), None):
            if self.too_long():
                ended = "budget"
                break
            self.kept[candidate.name] = self.tried(candidate, switch)
            self.write("running")
        self.write(ended)
        self.found(self.path)
        self.back()
        base = self.kept[search.BASE]
        if base["state"] != search.MEASURED:
            raise BenchmarkError(
                f"What serves could not be measured, so there is nothing to compare with: {base['why']}"
            )
        if not self.outcomes()[search.BASE].score:
            at_once = self.plain["runs"][0]["headline"]
            raise BenchmarkError(
                f"With what serves, no request keeps to the goals at {at_once} at once, so there is nothing to compare"
                " with: set wider benchmark_goals or a lower benchmark_concurrency."
            )

    def back(self) -> None:
        """Start what served before."""
        self.tell(f"{self.came_out}starting what served before")
        trouble = benchmark_trial.put_back(self.run, self.folder, wait=True)
        if trouble:
            raise BenchmarkError(f"The tune ended, but {trouble}")
        # The job's unit would do it once more when its result is taken, and somebody may have stopped it until then.
        os.unlink(os.path.join(self.folder, "put-back.json"))

    def too_long(self) -> bool:
        """Whether the next candidate would end after the last minute, by the time that those before it took."""
        spent = self.clock() - self.started
        seconds = [row["seconds"] for row in self.kept.values() if row["state"] == search.MEASURED]
        needed = sum(seconds) / len(seconds) if seconds else 0.0
        return len(self.kept) > 1 and spent + needed > self.plain["budget_s"]

    def tried(self, candidate: search.Candidate, switch: Switch) -> Dict[str, Any]:
        """Start and measure a candidate, and say how it came out."""
        before = self.clock()
        row: Dict[str, Any] = {"name": candidate.name, "options": candidate.options(), "env": candidate.env()}
        row.update(choices={axis: choice.name for axis, choice in candidate.choices.items()}, quality=None, points=[])
        try:
            row.update(self.measured(candidate, switch))
        except (TrialError, BenchmarkError, QualityError) as trouble:
            if self.trial.in_place and switch.own_runs():
                raise Interrupted(
                    f"{self.trial.own_unit} was started meanwhile, so the tune ended. Run it again to go on."
                ) from trouble
            row.update(state=search.FAILED, why=str(trouble), scores=[])
        row["seconds"] = round(self.clock() - before, 1)
        self.came_out = f"{candidate.name}: {described(row, self.plain)}; "
        return row

    def measured(self, candidate: search.Candidate, switch: Switch) -> Dict[str, Any]:
        """Start and measure a candidate. Raises TrialError, BenchmarkError or QualityError if that fails."""
        self.tell(f"{self.came_out}starting {candidate.name}")
        began = self.clock()
        benchmark_trial.power_limits(self.run, self.limits(candidate))
        switch.start(candidate.options(), candidate.env())
        start_s = round(self.clock() - began, 1)
        key = benchmark_measure.key_of(self.target, None)
        done = self.measurement.points(self.target, self.plain["runs"], key)
        self.version = done["engine"]["version"]
        points = done["points"][0]
        run = self.plain["runs"][0]
        scores = search.score(points, self.plain["objective"], run["headline"])
        if not scores:
            raise BenchmarkError(unanswered(points))
        state, why, quality = self.judged(candidate)
        return {"state": state, "why": why, "start_s": start_s, "points": points, "scores": scores, "quality": quality}

    def limits(self, candidate: search.Candidate) -> Dict[str, float]:
        """The power limit of each GPU: the candidate's, or the one that it had."""
        watts = candidate.power_limit_w
        return {uuid: float(watts or had) for uuid, had in self.plain["power_limits"].items()}

    def judged(self, candidate: search.Candidate) -> Tuple[str, str, Optional[Dict[str, Any]]]:
        """Refuse a candidate whose answers are worse than the baseline's; one with the same numbers is not asked."""
        if candidate.name != search.BASE and candidate.exact:
            return search.MEASURED, "", None
        quality = self.quality(self.target)
        base = (self.kept.get(search.BASE) or {}).get("quality")
        worse = benchmark_quality.outside_noise(Quality(**base), Quality(**quality)) if quality and base else None
        return (search.REFUSED, worse, quality) if worse else (search.MEASURED, "", quality)

    def write(self, ended: str) -> None:
        """Keep the tune as it stands."""
        outcomes = self.outcomes()
        best = search.winner(self.axes, outcomes, self.previous).name if search.BASE in outcomes else search.BASE
        moment = time.gmtime(self.started)
        run = self.plain["runs"][0]
        tune = {
            **{"schema": SCHEMA, "id": f"{time.strftime('%Y%m%dT%H%M%SZ', moment)}-{self.whose}-tune"},
            **{"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", moment), "question": self.plain["question"]},
            **{"objective": self.plain["objective"], "goals": run["goals"], "profile": run["name"]},
            **{"concurrency": run["headline"], "budget_minutes": round(self.plain["budget_s"] / 60, 1)},
            **{"collection": self.plain["collection"], "ended": ended, "baseline": search.BASE, "best": best},
            **{"node": self.node, "previous": self.previous},
            "engine": {**self.plain["engine"], "version": self.version, "options": self.trial.config},
            "model": self.plain["model"],
            "candidates": [
                {**row, "score": scored(outcomes[name]), "wins": name == best} for name, row in self.kept.items()
            ],
        }
        node_files.write_atomically(self.path, json.dumps(tune, indent=1) + "\n")


def scored(outcome: search.Outcome) -> Optional[float]:
    """The score of what was measured; none is no score of 0."""
    return outcome.score if outcome.state == search.MEASURED else None


def described(row: Mapping[str, Any], plain: Mapping[str, Any]) -> str:
    """How a candidate came out, in words."""
    units = {
        "throughput": "output tokens/s",
        "goodput": "requests/s within the goals",
        "latency": "tokens/s for one user",
    }
    if row["state"] != search.MEASURED:
        return f"{row['state']}: {row['why']}"
    return f"{search.Outcome('', search.MEASURED, row['scores']).score:,.1f} {units[plain['objective']]}"


def unanswered(points: Sequence[Mapping[str, Any]]) -> str:
    """Why points give no score."""
    failed, asked = (sum(point[key] for point in points) for key in ("failed", "requests"))
    errors = [error for point in points for error in point["errors"]]
    return f"{failed} of {asked} requests failed{f': {errors[0]}' if errors else ''}"


def main(folder: str) -> int:
    plain = json.loads(node_files.read_text(os.path.join(folder, "job.json")))
    job = Tune(folder, plain) if plain["kind"] == "tune" else Job(folder, plain)
    try:
        if isinstance(job, Tune):
            job.tune()
        else:
            job.benchmark()
    except (BenchmarkError, TrialError, QualityError, Interrupted, OSError) as trouble:
        job.status(line="failed", error=str(trouble))
        sys.stderr.write(f"{trouble}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
