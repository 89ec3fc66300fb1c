"""The memory of simroute serve over many requests.

usage: memory.py [--requests N] [--out FILE]

Sixteen clients send as fast as they are answered, streams of four events; memory is read after each slice.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from run import load, process, router_command, upstream

PORT, SLICE_S, CLIENTS = 32700, 10.0, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    done, samples = 0, []
    with tempfile.TemporaryDirectory() as folder, upstream(0.0, PORT, 4) as server:
        command = router_command("simroute", sys.executable, server, PORT + 1, Path(folder))
        with process(command, f"http://127.0.0.1:{PORT + 1}/health") as router:
            time.sleep(1.0)
            while done < given.requests:
                result = load(f"http://127.0.0.1:{PORT + 1}", SLICE_S, "clients", CLIENTS)
                if result["failed"]:
                    raise RuntimeError(f"{result['failed']} requests failed")
                done += result["requests"]
                samples.append({"requests": done, "memory_mb": round(router.memory_info().rss / 1e6, 1)})
                print(samples[-1], file=sys.stderr, flush=True)
    text = json.dumps(samples, indent=1)
    print(text) if given.out is None else given.out.write_text(text + "\n", encoding="utf-8")


main()
