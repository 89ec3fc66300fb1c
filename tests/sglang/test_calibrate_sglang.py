"""``simroute calibrate`` against a real SGLang 0.5.23 on a CPU that the tests start; run by ``make test-sglang``."""

import asyncio
import os
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from calibrate.client import SglangClient
from calibrate.closed_loop import closed_loop_scenario, compare, measure, simulated
from calibrate.errors import ForeignTrafficError, RefusedError, ServerGoneError
from calibrate.launcher import launched_server
from calibrate.neighbours import Neighbours
from calibrate.plan import DecodePoint, PrefillPoint
from calibrate.probes import Prober
from calibrate.samples import DecodeSample, PrefillSample
from calibrate.server_facts import read_facts
from simcore.errors import UserError
from simcore.profile import ServiceProfile
from simroute import main

pytestmark = [
    pytest.mark.sglang,
    pytest.mark.skipif("SIMROUTE_SGLANG" not in os.environ, reason="needs an SGLang environment (make test-sglang)"),
]
VENV = Path(os.environ.get("SIMROUTE_SGLANG", "."))
PYTHON = str(VENV / "bin/python")
MODEL = str(VENV / "tiny-model")
ENVIRONMENT = {"SGLANG_USE_CPU_ENGINE": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
FLAGS = [
    "--served-model-name=tiny", "--load-format=dummy", "--device=cpu", "--attention-backend=torch_native",
    "--sampling-backend=pytorch", "--dtype=float32", "--max-total-tokens=65536", "--max-running-requests=16",
    "--disable-overlap-schedule", "--sleep-on-idle", "--enable-metrics", "--load-snapshot-publish-interval=1",
]  # fmt: skip


def launched(*more: str, timeout_s: float = 300.0):  # type: ignore[no-untyped-def]
    return launched_server(
        MODEL, [*FLAGS, *more], python=PYTHON, environment=ENVIRONMENT, timeout_s=timeout_s, api_key=None
    )


def test_launch_measures_predicts_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    before = {process.pid for process in psutil.process_iter()}
    command = ["calibrate", "--launch", MODEL, "--python", PYTHON, "--budget", "60s", "--out", str(tmp_path), "--"]
    result = CliRunner().invoke(main, [*command, *FLAGS], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    profile = ServiceProfile.load("profile.json", tmp_path)
    assert (profile.settings.max_running_requests, profile.settings.overlap) == (16, False)
    assert (profile.kv_tokens_capacity, profile.context_length) == (65_536, 4096)
    assert profile.measurement is not None
    assert profile.measurement.duration_s < 60
    # Wide bounds: the machine that runs tests is not a quiet one.
    assert profile.residuals.decode is not None
    assert profile.residuals.decode.mape < 0.25
    assert profile.measurement.server_clock_ratio == pytest.approx(1.0, abs=0.1)
    assert (tmp_path / "report.html").stat().st_size > 10_000
    left = [process for process in psutil.process_iter(["cmdline"]) if process.pid not in before]
    assert not [process for process in left if "sglang" in " ".join(process.info["cmdline"] or [])]


def test_one_server_through_the_faults(tmp_path: Path) -> None:
    async def scene() -> None:
        async with launched("--api-key=secret") as url, SglangClient(url, "secret") as client:
            facts = await read_facts(client)
            assert facts.engine_version == "0.5.23"
            await _samples_agree_with_the_server(client, url)
            await _others_are_noticed(client, url)
            async with SglangClient(url, "wrong") as stranger:
                with pytest.raises(RefusedError, match="--api-key-env"):
                    await read_facts(stranger)
            await _death_is_noticed(client, url)

    asyncio.run(scene())


async def _samples_agree_with_the_server(client: SglangClient, url: str) -> None:
    import random

    with Neighbours(url) as neighbours:
        prober = Prober(client, random.Random(1), radix_cache=True, neighbours=neighbours)
        await prober.warm_up()
        (decode,) = await prober.take(DecodePoint(batch=4, prompt_tokens=64, longest_prompt=512))
        (cached,) = await prober.take(PrefillPoint(new_tokens=64, cached_tokens=512, fewest_tokens=64))
    assert isinstance(decode, DecodeSample)
    assert decode.client_step_s == pytest.approx(decode.step_s, rel=0.1)
    assert decode.work_s is not None
    assert 0 < decode.work_s < 1
    assert isinstance(cached, PrefillSample)
    assert cached.cached_tokens == pytest.approx(512, abs=2)
    assert cached.step_s < cached.ttft_s


async def _others_are_noticed(client: SglangClient, url: str) -> None:
    import random

    with Neighbours(url) as neighbours:
        async with SglangClient(url, "secret") as other:
            prober = Prober(client, random.Random(2), radix_cache=True, neighbours=neighbours)
            traffic = asyncio.create_task(other.generate(list(range(100, 200)), 3000))
            await asyncio.sleep(0.3)
            with pytest.raises(ForeignTrafficError, match="--allow-busy"):
                await prober.take(DecodePoint(batch=1, prompt_tokens=64, longest_prompt=64))
            await other.abort_ours()
            with pytest.raises(RefusedError, match="abort"):
                await traffic


async def _death_is_noticed(client: SglangClient, url: str) -> None:
    port = int(url.rpartition(":")[2])
    request = asyncio.create_task(client.generate(list(range(100, 200)), 2000))
    await asyncio.sleep(0.5)
    listening = {one.pid for one in psutil.net_connections("tcp") if one.status == "LISTEN" and one.laddr[1] == port}
    for pid in listening:
        psutil.Process(pid).kill()
    with pytest.raises(ServerGoneError):
        await request


def test_the_simulated_server_keeps_pace_with_the_real_one(tmp_path: Path) -> None:
    """A coarse check, as tests share their machine: the profile of a short calibration, driven closed loop."""
    from calibrate.session import Order, calibrate_server

    async def scene() -> None:
        async with launched() as url:
            order = Order(url, None, 60.0, tmp_path, False, False, "tiny", None, ("test",))
            await calibrate_server(order, lambda *_: None, lambda _: None)
            async with SglangClient(url) as client:
                scenario = closed_loop_scenario(tmp_path / "profile.json", 4, 16)
                errors = compare(await measure(client, scenario, 4), simulated(scenario))
        assert all(abs(error) < 0.35 for error in errors.values()), errors

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("model", "more", "said"),
    [("/nowhere/at/all", [], "the model was not found"), (MODEL, ["--no-such-flag"], "does not know one of the flags")],
)
def test_a_launch_that_fails_says_why(model: str, more: list[str], said: str) -> None:
    async def scene() -> None:
        server = launched_server(
            model, [*FLAGS, *more], python=PYTHON, environment=ENVIRONMENT, timeout_s=120, api_key=None
        )
        async with server:
            pytest.fail("it started")

    with pytest.raises(UserError, match=said):
        asyncio.run(scene())
