"""Real SGLang servers on the CPU: six policies under simroute live, SGLang's own benchmark, and the faults.

usage: run.py --python PYTHON --model FOLDER --out FOLDER

PYTHON has sglang 0.5.23 for the CPU, FOLDER a small model with its tokenizer; weights are made up. It runs in the
environment of the tests, for their ``openai``.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from openai import OpenAI
from servers import running, slow_down, wait

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def simroute(*words: str) -> list[str]:
    return [sys.executable, "-m", "simroute", *words]


def sglang_benchmark(python: str, model: str, urls: list[str], out: Path, environment: dict[str, str]) -> None:
    """``python -m sglang.benchmark.serving`` against ``simroute serve``."""
    config = out / "servers.yaml"
    config.write_text("port: 31990\nservers:\n" + "".join(f"  - url: {url}\n" for url in urls))
    serve = subprocess.Popen(simroute("serve", "--config", str(config)), cwd=ROOT, env=environment)
    try:
        wait("http://127.0.0.1:31990", serve, 30)
        command = [python, "-m", "sglang.benchmark.serving", "--backend", "sglang"]
        command += ["--base-url", "http://127.0.0.1:31990", "--dataset-name", "random-ids", "--tokenizer", model]
        command += ["--num-prompts", "60", "--request-rate", "8", "--random-input-len", "128"]
        command += ["--random-output-len", "24", "--random-range-ratio", "0.5"]
        done = subprocess.run(
            command, cwd=out, env={**environment, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=True
        )
        (out / "sglang-benchmark.txt").write_text(done.stdout)
        body = json.dumps({"text": "hello", "sampling_params": {"max_new_tokens": 5}, "stream": True})
        url, kind = "http://127.0.0.1:31990/generate", "Content-Type: application/json"
        curl = ["curl", "-sN", url, "-H", kind, "-d", body]
        done = subprocess.run(curl, capture_output=True, text=True, check=True)
        (out / "curl.txt").write_text(done.stdout)
        (out / "openai.txt").write_text(openai_client("http://127.0.0.1:31990/v1"))
    finally:
        serve.send_signal(signal.SIGTERM)
        serve.wait(30)


def openai_client(base_url: str) -> str:
    """What OpenAI's own client streams through it, a piece a line."""
    client = OpenAI(base_url=base_url, api_key="none is asked for")
    names = [model.id for model in client.models.list()]
    answer = client.completions.create(model=names[0], prompt="hello", max_tokens=8, stream=True)
    pieces = [repr(piece.choices[0].text) for piece in answer if piece.choices]
    return "\n".join([f"models: {', '.join(names)}", *pieces]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    logs = {port: given.out / f"server-{port}.log" for port in (31981, 31982, 31983, 31984)}
    with running(given.python, given.model, logs) as servers:
        urls = list(servers)
        for url in urls:
            slow_down(url)
        print("the servers are ready", file=sys.stderr, flush=True)
        command = simroute("live", "--scenario", str(HERE / "cpu.yaml"), "--servers", ",".join(urls))
        with (given.out / "live.txt").open("w") as output:
            command += ["--out", str(given.out)]
            live = subprocess.run(command, cwd=ROOT, env=environment, stdout=output, check=False)
        print("simroute live ended with", live.returncode, file=sys.stderr, flush=True)
        sglang_benchmark(given.python, given.model, urls, given.out, environment)
        print("SGLang's benchmark is done", file=sys.stderr, flush=True)
        pairs = [word for url, server in list(servers.items())[:2] for word in (url, str(server.pid))]
        with (given.out / "faults.json").open("w") as output:
            faults = [sys.executable, str(HERE / "faults.py"), *pairs]
            subprocess.run(faults, env=environment, stdout=output, check=False)


main()
