# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure an endpoint from inside the engine's image: ``python -m ….benchmark.client FOLDER``.

FOLDER has spec.json. engine.json there says what is measured, each point is a file of its run, and lines say how far it
is. The client is ``vllm bench serve``, imported once. A point is measured by several processes, each of which has its
share of the requests, so that one process is not what is measured; each one's CPU time is in the result.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import multiprocessing
import os
import resource
import ssl
import sys
import time
import traceback
import urllib.request
from dataclasses import asdict
from multiprocessing import connection
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterator, List, Mapping, Sequence

from . import figures, load
from .figures import Part

#: Concurrent requests that one process has at the most before another one is started.
PER_PROCESS = 64
#: The CPU share of a process from which on a point is measured again, with twice as many.
BUSY = 0.7
#: A higher concurrency that gains less than this is not raised further.
GAIN = 1.05
#: Requests before the first point, which are not measured.
WARM_UP = 64
#: Where the engine's container has its options.
CONFIG = "/etc/vllm/config.yaml"


def processes(concurrency: int, cpus: int, wanted: int = 0, least: int = 0) -> int:
    """How many processes measure: half of the CPUs at the most, since the engine needs the others.

    ``wanted``: as many as the user says; ``least``: as many as a point before needed.
    """
    usual = max(least, min(-(-concurrency // PER_PROCESS), cpus // 2, 16))
    return max(1, min(wanted or usual, concurrency))


def shares(total: int, count: int) -> List[int]:
    """A number in equal parts.

    >>> shares(10, 4)
    [3, 3, 2, 2]
    """
    return [total // count + (number < total % count) for number in range(count)]


class Client:
    """Measures the points of a sweep. ``bench``: the module vllm.benchmarks.serve."""

    def __init__(self, bench: Any, spec: Mapping[str, Any], folder: str, say: Callable[[str], None]) -> None:
        self.bench, self.spec, self.folder = bench, spec, folder
        self.say: Callable[[str], None] = lambda line: say(f"{spec['name']}: {line}")
        self.cpus = os.cpu_count() or 1
        self.rows: Sequence[load.Request] = spec.get("own") or []
        self.least = self.asked = self.done = 0

    def sweep(self) -> None:
        """Measure every concurrency so many times, until more of it gains nothing."""
        best = 0.0
        self.measure(min(max(self.spec["concurrency"]), WARM_UP), 0)
        for concurrency in sorted(self.spec["concurrency"]):
            rates = []
            for repeat in range(1, self.spec["repeats"] + 1):
                figure = self.unhindered(concurrency, repeat)
                self.keep(figure)
                rates.append(figure["output_tokens_per_s"])
            if concurrency >= self.spec["headline"] and max(rates) < GAIN * best:
                break
            best = max(best, *rates)

    def unhindered(self, concurrency: int, repeat: int) -> Dict[str, Any]:
        """Measure a point, again with twice as many processes where the client was close to its own limit."""
        figure = self.measure(concurrency, repeat)
        while figure["client_cpu_share"] > BUSY and not self.spec.get("clients"):
            more = min(2 * figure["client_processes"], self.cpus, concurrency)
            if more <= figure["client_processes"]:
                break
            self.least = more
            figure = self.measure(concurrency, repeat)
        return figure

    def measure(self, concurrency: int, repeat: int) -> Dict[str, Any]:
        """Measure one point; repeat 0 is the warm-up."""
        count = processes(concurrency, self.cpus, self.spec.get("clients") or 0, self.least)
        total = max(self.spec["least"], concurrency * self.spec["per_client"]) if repeat else concurrency
        # Never the same requests twice, or the prefix cache answers them.
        self.asked += 1
        seed = 1000 * self.spec["seed"] + self.asked
        self.say(f"{'measuring' if repeat else 'warming up with'} {concurrency} at once, {total} requests")
        drawn = load.requests(self.spec["profile"], total, seed, self.spec["vocabulary"], self.rows)
        before = self.counters()
        parts = self._parts([drawn[number::count] for number in range(count)], shares(concurrency, count))
        figure = figures.point(parts, self.spec.get("goals") or {})
        after = self.settled(before, figure["requests"])
        return {
            **{"concurrency": concurrency, "repeat": repeat, "seed": seed, "client_processes": count},
            **figure,
            **figures.engine(before, after, figure["requests"]),
            **{
                # This clock is the same in all processes of a node, also in containers.
                "started": min(part.started for part in parts),
                "ended": max(part.ended for part in parts),
            },
        }

    def settled(self, before: Mapping[str, float], requests: int, attempts: int = 20) -> Dict[str, float]:
        """The counters once the engine has counted the last request: it does so after its answer."""
        after = self.counters()
        while after.get("finished", 0) - before.get("finished", 0) < requests and attempts:
            time.sleep(0.1)
            after, attempts = self.counters(), attempts - 1
        return after

    def counters(self) -> Dict[str, float]:
        """What the engine counts; nothing if it does not say."""
        try:
            with opened(self.spec["metrics_url"], 10) as answer:
                return figures.counters(answer.read().decode())
        except (OSError, http.client.HTTPException):
            return {}

    def keep(self, figure: Mapping[str, Any]) -> None:
        """Write a point, whole or not at all."""
        write(os.path.join(self.folder, f"{self.spec['run']}-{self.done:03d}.json"), figure)
        self.done += 1
        self.say(f"measured {figure['concurrency']} at once: {figure['output_tokens_per_s']:,.0f} tokens/s")

    def _parts(self, drawn: Sequence[List[load.Request]], limits: Sequence[int]) -> List[Part]:
        """What each process saw of its requests, with so many of them at once. All start when all are ready.

        Raises:
            RuntimeError: one of them failed, with its own words.
        """
        context = multiprocessing.get_context("fork")
        children, pipes = [], []
        try:
            for mine, limit in zip(drawn, limits):
                ours, theirs = context.Pipe()
                options = self.options(len(mine), max(1, limit))
                children.append(context.Process(target=self._child, args=(mine, options, theirs)))
                children[-1].start()
                # Where the child alone has the other end, its death is the end of the pipe.
                theirs.close()
                pipes.append(ours)
            _heard(pipes)
            for pipe in pipes:
                with contextlib.suppress(OSError):
                    pipe.send("go")
            return [Part(**answer) for answer in _heard(pipes)]
        finally:
            for child in children:
                child.kill()
                child.join()

    def _child(self, mine: List[load.Request], options: Any, pipe: Any) -> None:
        """A process of the client: what it prints is not for people."""
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)

        def ready() -> None:
            pipe.send({})
            pipe.recv()

        try:
            pipe.send(asdict(self.part(mine, options, ready)))
        except (Exception, SystemExit):  # whatever it is, the parent tells it
            pipe.send(traceback.format_exc(limit=-3))

    def part(self, mine: List[load.Request], options: Any, ready: Callable[[], Any]) -> Part:
        """Measure these requests by ``vllm bench serve``. ``ready`` returns when all processes are ready."""
        with timed(self.bench, [self._sample(number, one) for number, one in enumerate(mine)], ready) as part:
            result = self.bench.main(options)
        part.start_times, part.input_lens = result["start_times"], result["input_lens"]
        part.output_lens, part.ttfts, part.itls = result["output_lens"], result["ttfts"], result["itls"]
        # An answer that was cut off, or has no token, need not have an error.
        seen = zip(result["errors"], part.ttfts, part.output_lens)
        part.errors = [error or ("" if ttft and tokens else "no token came") for error, ttft, tokens in seen]
        return part

    def _sample(self, number: int, one: load.Request) -> Any:
        return self.bench.SampleRequest(
            prompt=one.prompt,
            prompt_len=one.prompt_tokens,
            expected_output_len=one.output_tokens,
            # Unique among the processes: the engine goes by it.
            request_id=f"benchmark-{os.getpid()}-{number}",
        )

    def options(self, count: int, limit: int) -> Any:
        """The options of ``vllm bench serve``, as its own parser reads them. The key comes from OPENAI_API_KEY."""
        parser = self.bench.FlexibleArgumentParser()
        self.bench.add_cli_args(parser)
        words = [
            *("--backend", "openai", "--base-url", self.spec["base_url"], "--endpoint", "/v1/completions"),
            *("--model", self.spec["model"], "--served-model-name", self.spec["model"]),
            # Of its random ones it would cut texts off, and ignore the end of an answer.
            *("--dataset-name", "custom", "--num-prompts", str(count)),
            *("--max-concurrency", str(limit), "--request-rate", "inf"),
            *("--ready-check-timeout-sec", "0", "--temperature", "0", "--disable-tqdm", "--save-detailed"),
            *(["--ignore-eos"] if self.spec.get("ignore_eos", True) else []),
            *(["--insecure"] if self.spec.get("insecure") else []),
        ]
        return parser.parse_args(words)


def _heard(pipes: Sequence[Any]) -> List[Any]:
    """The next that each child says.

    Raises:
        RuntimeError: one failed, with its own words, or was killed.
    """
    said: Dict[Any, Any] = {}
    while len(said) < len(pipes):
        ready: List[Any] = connection.wait([pipe for pipe in pipes if pipe not in said])
        for pipe in ready:
            try:
                said[pipe] = pipe.recv()
            except (EOFError, ConnectionResetError):
                raise RuntimeError("A process of the client was killed, maybe for want of memory.") from None
            if isinstance(said[pipe], str):
                raise RuntimeError(said[pipe])
    return [said[pipe] for pipe in pipes]


@contextlib.contextmanager
def timed(bench: Any, samples: List[Any], ready: Callable[[], Any]) -> Iterator[Part]:
    """Have ``vllm bench serve`` send these requests, and measure the CPU time of that alone."""
    part = Part(0.0, 0.0, 0.0)
    own = {name: getattr(bench, name) for name in ("get_samples", "get_tokenizer", "benchmark")}

    async def measured(*args: Any, **options: Any) -> Any:
        await asyncio.to_thread(ready)
        part.started, cpu = time.perf_counter(), time.process_time()
        try:
            return await own["benchmark"](*args, **options)
        finally:
            part.ended, part.cpu_s = time.perf_counter(), time.process_time() - cpu

    bench.get_samples, bench.benchmark = (lambda *args, **options: samples), measured
    # The engine counts the tokens. Some releases insist on a tokenizer, and ask it where an answer was cut off.
    bench.get_tokenizer = lambda *args, **options: lambda *text, **how: SimpleNamespace(input_ids=[])
    try:
        yield part
    finally:
        for name, function in own.items():
            setattr(bench, name, function)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def write(path: str, value: Any) -> None:
    """Write a file, whole or not at all."""
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.replace(f"{path}.new", path)


def opened(request: Any, timeout_s: float, insecure: bool = False) -> Any:
    """The answer to a request, or to a URL. Ansible's own open_url is not in the image."""
    context = ssl._create_unverified_context() if insecure else ssl.create_default_context()
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context)).open(request, timeout=timeout_s)


def served(base_url: str, model: str, key: str, insecure: bool = False) -> int:
    """The context of a model that is served, in tokens; 0 if its server does not say."""
    request = urllib.request.Request(f"{base_url}/v1/models", headers={"Authorization": f"Bearer {key}"} if key else {})
    with opened(request, 30, insecure) as answer:
        lengths = {one.get("id"): one.get("max_model_len") for one in json.load(answer)["data"]}
    return int(lengths.get(model) or 0)


def engine_options(path: str = CONFIG) -> Dict[str, Any]:
    """The engine's options from its own file, without its keys."""
    import yaml  # the image has it

    with open(path, encoding="utf-8") as file:
        return {name: value for name, value in (yaml.safe_load(file) or {}).items() if name != "api-key"}


def vocabulary(options: Mapping[str, Any]) -> int:
    """The size of the model's vocabulary, from its config.json; that of a small one if it does not say."""
    from transformers import PretrainedConfig  # type: ignore[import-not-found]  # only the image has it

    try:
        config, _rest = PretrainedConfig.get_config_dict(options["model"], revision=options.get("revision"))
    except (OSError, KeyError, ValueError):
        return load.SMALL
    return int(config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size") or load.SMALL)


def own_requests(lines: Sequence[str], model: str, url: str) -> List[load.Request]:
    """The user's own requests as the engine's tokenizer reads them: its client cuts off texts of unknown length."""
    rows = []
    for row in load.read_rows(lines):
        body = json.dumps({"model": model, "prompt": row.prompt}).encode()
        asked = urllib.request.Request(f"{url}/tokenize", body, {"Content-Type": "application/json"})
        with opened(asked, 60) as answer:
            rows.append(load.Request(json.load(answer)["tokens"], row.output_tokens))
    return rows


def check(runs: Sequence[Mapping[str, Any]], context: int) -> str:
    """Why a run does not fit what is served; empty if all do."""
    for run in runs:
        own = [row.prompt_tokens + row.output_tokens for row in run.get("own") or ()]
        longest = max(own) if own else load.longest(run["profile"])
        if context and longest > context:
            return (
                f"The longest request of the profile {run['name']} has {longest:,} tokens, and the context that is"
                f" served has {context:,}: leave that profile out, or serve with max_model_len={longest} or more."
            )
    return ""


def open_files() -> None:
    """Have as many connections as the container may: its usual limit is 1024."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(folder: str) -> int:
    open_files()
    with open(os.path.join(folder, "spec.json"), encoding="utf-8") as file:
        spec = json.load(file)
    say("starting the client")
    import vllm
    from vllm.benchmarks import serve

    options = engine_options()
    key = os.environ.get("OPENAI_API_KEY", "")
    for run in spec["runs"]:
        run["own"] = own_requests(run["rows"], spec["model"], spec["engine_url"]) if run.get("rows") else []
    wrong = check(spec["runs"], served(spec["base_url"], spec["model"], key, bool(spec.get("insecure"))))
    if wrong:
        write(os.path.join(folder, "refused.json"), wrong)
        return 1
    write(os.path.join(folder, "engine.json"), {"version": vllm.__version__, "options": options})
    size = vocabulary(options)
    for number, run in enumerate(spec["runs"]):
        whole = {**spec, **run, "run": number, "vocabulary": size}
        Client(serve, whole, folder, say).sweep()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
