"""A calibration from beginning to end: facts, plan, measuring, fit, and the folder in which it all lies.

The folder: ``samples.jsonl`` from the first sample on, ``profile.json``, ``report.html`` and ``plots/`` at the end.
"""

import asyncio
import random
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from simcore.errors import UserError
from simcore.staging import check_out, slug

from .build import Built, Session, build_profile, describe_machine
from .campaign import Campaign, Progress
from .client import SglangClient
from .neighbours import Neighbours
from .pace import WORK
from .page import calibration_page
from .plan import make_plan
from .plots import calibration_plots
from .probes import Prober
from .samples import Sample, SampleFile
from .server_facts import ServerFacts, read_facts

__all__ = ["Calibration", "Order", "calibrate_server", "write_results"]

_FIT_SHARE = 0.1  # of the budget, at most so many seconds, for the fit and the page
_FIT_AT_MOST_S = 20.0


@dataclass(frozen=True, slots=True)
class Order:
    """What the user asked for. ``folder`` is where the results go; ``resume`` goes on from the samples there."""

    url: str
    api_key: str | None
    budget_s: float
    folder: Path
    resume: bool
    allow_busy: bool
    name: str | None
    gpu: str | None
    command: Sequence[str]


@dataclass(frozen=True, slots=True)
class Calibration:
    """The result, and where it lies."""

    built: Built
    folder: Path


async def calibrate_server(order: Order, on_progress: Progress, say: Callable[[str], None]) -> Calibration:
    """Measure a running server. Raises UserError when that fails; the samples so far stay in the folder."""
    clock = asyncio.get_running_loop().time
    began, started_at = clock(), datetime.now(UTC)
    async with SglangClient(order.url, order.api_key) as client:
        facts = await read_facts(client)
        check_out(order.folder)
        file = SampleFile(order.folder / "samples.jsonl", _header(facts))
        earlier = file.resume() if order.resume else []
        if not order.resume:
            file.start()
        say(_facts_line(facts))
        reserve_s = min(_FIT_SHARE * order.budget_s, _FIT_AT_MOST_S)
        campaign = await _measured(
            client, facts, order, earlier, file, began + order.budget_s - reserve_s, on_progress, say
        )
    session = Session(
        name=order.name or slug(f"{facts.model}-{facts.device}").lower(),
        gpu=order.gpu or (describe_machine() if facts.device == "cpu" else facts.device),
        machine=describe_machine(),
        started_at=started_at,
        duration_s=clock() - began,
        samples_sha256=file.sha256(),
        missed=campaign.missed,
        busy=order.allow_busy,
    )
    built = build_profile(facts, campaign.samples, session)
    write_results(order.folder, built, shlex.join(order.command))
    return Calibration(built, order.folder)


async def _measured(
    client: SglangClient,
    facts: ServerFacts,
    order: Order,
    earlier: list[Sample],
    file: SampleFile,
    ends_at: float,
    on_progress: Progress,
    say: Callable[[str], None],
) -> Campaign:
    """The campaign after its end, at ``ends_at`` (of the event loop's clock) at the latest."""
    samples = earlier
    with Neighbours(order.url) as neighbours:
        prober = Prober(
            client,
            random.Random(),
            radix_cache=facts.settings.radix_cache,
            neighbours=neighbours,
            allow_busy=order.allow_busy,
        )
        try:
            await prober.idle_load()
            plan = make_plan(facts, await prober.warm_up())
            kept = f"; {len(earlier)} samples kept" if earlier else ""
            say(f"plan: {plan.describe()}; {order.budget_s:.0f} s at most{kept}")
            campaign = Campaign(plan, prober, earlier, file.append, on_progress)
            samples = campaign.samples
            await campaign.run(ends_at - asyncio.get_running_loop().time())
        except UserError as error:
            raise _kept(error, len(samples), order.folder) from error
        finally:
            await _leave(client)
    return campaign


def _facts_line(facts: ServerFacts) -> str:
    return (
        f"{facts.model} on SGLang {facts.engine_version} ({facts.device}): {facts.settings.max_running_requests} "
        f"running requests, {facts.kv_tokens_capacity} KV tokens, context {facts.context_length}"
    )


def _header(facts: ServerFacts) -> dict[str, object]:
    """What makes samples of one server, measured in one way, and not those of another."""
    return {
        "timed_work": WORK,
        "decode_prompts": "unequal",
        "model": facts.model,
        "engine_version": facts.engine_version,
        "device": facts.device,
        "kv_tokens_capacity": facts.kv_tokens_capacity,
        "settings": facts.settings.model_dump(mode="json"),
    }


def _kept(error: UserError, samples: int, folder: Path) -> UserError:
    """The same failure, and what can be done about it."""
    if not samples:
        return error
    return type(error)(
        f"{error}\n{samples} samples are kept in {folder / 'samples.jsonl'}; go on with --resume {folder}"
    )


async def _leave(client: SglangClient) -> None:
    """Take what is still running off the server, also when it was interrupted or is dead."""
    try:
        await asyncio.wait_for(asyncio.shield(client.abort_ours()), timeout=5)
    except (UserError, TimeoutError):
        return


def write_results(folder: Path, built: Built, command: str) -> None:
    """The profile, the page and its plots."""
    plots = calibration_plots(built)
    try:
        (folder / "plots").mkdir(exist_ok=True)
        for name, svg in plots.items():
            (folder / "plots" / f"{name}.svg").write_text(svg, encoding="utf-8")
        (folder / "report.html").write_text(calibration_page(built, plots, command), encoding="utf-8")
        (folder / "profile.json").write_text(built.profile.to_json(), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from error
