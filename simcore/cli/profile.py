"""``simroute profile show|check|diff``: reading service profiles."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from simcore.profile import ServiceProfile
    from simcore.remote_profile import AnyProfile, RemoteProfile

__all__ = ["print_diff", "profile"]


@click.group(short_help="Show, check or compare service profiles.")
def profile() -> None:
    """Read profiles of servers and remote APIs: bundled ones by name, others by the path of their .json file.

    \b
    Examples:
      simroute profile show llama-3.1-8b-h100
      simroute profile check results/my-server/profile.json
      simroute profile diff before.json after.json
    """


@profile.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the profile's document.")
def show(name: str, as_json: bool) -> None:
    """Print where a profile comes from, what it predicts and how far it can be trusted."""
    from simcore.remote_profile import RemoteProfile

    loaded = _load_any(name)
    if as_json:
        click.echo(loaded.to_json(), nl=False)
        return
    click.secho(loaded.name, bold=True)
    for heading, value in _remote_lines(loaded) if isinstance(loaded, RemoteProfile) else _lines(loaded):
        click.echo(f"  {heading:22} {value}")


@profile.command()
@click.argument("name")
def check(name: str) -> None:
    """Check that a profile can be read, and say what in it to look at twice."""
    from simcore.profile_comparison import implausibilities
    from simcore.remote_profile import own_profiles

    loaded = _load_any(name)
    for own in own_profiles([loaded]):
        for doubt in implausibilities(own):
            click.echo(f"warning: {doubt}")
    click.echo(f"{loaded.name} is a valid profile")


@profile.command()
@click.argument("first")
@click.argument("second")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def diff(first: str, second: str, as_json: bool) -> None:
    """Compare two profiles: what they predict over the range valid for both, and their settings."""
    from dataclasses import asdict

    from simcore.profile_comparison import compare_profiles

    left, right = _load(first), _load(second)
    if as_json:
        click.echo(json.dumps(asdict(compare_profiles(left, right)), indent=2))
        return
    print_diff(left, right)


def print_diff(first: "ServiceProfile", second: "ServiceProfile") -> None:
    """Both, term by term, on stdout."""
    from simcore.profile_comparison import compare_profiles

    difference = compare_profiles(first, second)
    click.echo(f"{second.name} against {first.name}")
    for term in difference.terms:
        click.echo(
            f"  {term.term:18} {term.mean:+7.1%} on average, {term.mean_abs:.1%} either way, {term.max_abs:.1%} at most"
        )
    if difference.stolen is not None:
        here, there = difference.stolen
        click.echo(f"  both beside {here:.1%} of stolen time; the second was measured beside {there:.1%}")
    if difference.work_s is not None:
        here, there = difference.work_s
        longer = f"{abs(there / here - 1):.1%} {'longer' if there >= here else 'less'}"
        click.echo(f"  both at the pace of the first; the same work took {longer} beside the second")
    for name, old, new in difference.fields:
        click.echo(f"  {name:28} {old} -> {new}")


def _load_any(name: str) -> "AnyProfile":
    from simcore.remote_profile import load_profile

    return load_profile(name, Path())


def _load(name: str) -> "ServiceProfile":
    from simcore.errors import UserError
    from simcore.profile import ServiceProfile

    loaded = _load_any(name)
    if not isinstance(loaded, ServiceProfile):
        raise UserError(f"{name} is a remote API's profile, which has no step times to compare")
    return loaded


def _remote_lines(loaded: "RemoteProfile") -> list[tuple[str, str]]:
    limits = (
        (loaded.requests_per_minute, "requests a minute"),
        (loaded.tokens_per_minute, "tokens a minute"),
        (loaded.max_running_requests, "requests at once"),
    )
    price = loaded.price
    return [
        ("model", loaded.model),
        ("source", loaded.source),
        ("first token", f"after {loaded.first_token_s:g} s, varying by {loaded.first_token_cv:.0%}"),
        ("then", f"{loaded.output_tps:g} tokens/s"),
        ("price of 1M tokens", f"{price.input_per_million:g} in, {price.output_per_million:g} out"),
        ("limits", ", ".join(f"{limit:,.10g} {what}" for limit, what in limits if limit is not None) or "none"),
        ("context length", f"{loaded.context_length:,} tokens"),
    ]


def _lines(loaded: "ServiceProfile") -> list[tuple[str, str]]:
    from simcore.step_time import StepTimes

    provenance, settings, valid = loaded.provenance, loaded.settings, loaded.valid_range
    times = StepTimes(loaded.steps, settings)
    largest = min(valid.max_batch, settings.max_running_requests)
    lines = [
        ("model", provenance.model),
        ("hardware", provenance.gpu),
        ("engine", f"{provenance.engine} {provenance.engine_version}"),
        ("measured by", provenance.measured_by + (f", {provenance.date}" if provenance.date else "")),
        ("KV pool", f"{loaded.kv_tokens_capacity} tokens; context length {loaded.context_length}"),
        ("running requests", f"at most {settings.max_running_requests}"),
        ("decode step", f"{_ms(times.decode_base_s[1])} alone, {_ms(times.decode_base_s[largest])} at batch {largest}"),
        ("context", f"{times.decode_context_s[largest] * 1e9:.1f} ns a token and decode step"),
        ("prefill step", ", ".join(f"{_ms(times.prefill_s(n, n * n / 2))} for {n} tokens" for n in (128, 1024))),
        ("ingress, egress", f"{_ms(loaded.requests.ingress_s)}, {_ms(loaded.requests.egress_s)}"),
        ("last token", f"{_ms(loaded.requests.last_token_s)} later"),
        ("sent at once", f"reach the scheduler {_ms(loaded.requests.ingress_spacing_s)} apart"),
        ("valid up to", f"batch {valid.max_batch}, context {valid.max_context_tokens} tokens"),
        ("", f"prefill steps of {valid.max_prefill_tokens} tokens"),
    ]
    for term in ("decode", "prefill", "mixed"):
        left = getattr(loaded.residuals, term)
        if left is not None:
            lines.append(
                (f"{term} residual", f"{left.mape:.1%} on average, {left.max_abs:.1%} at most, {left.samples} samples")
            )
    if loaded.host is not None:
        steal, pace = loaded.host.steal, loaded.host.pace
        longer = f"steps take {steal.cost:.2f}% longer with each percent"
        lines.append(("stolen", f"{steal.mean:.1%} of the processor time; {longer}"))
        if pace is not None:
            costs = f"decode steps take {pace.decode_cost:.2f}% longer, prefill steps {pace.prefill_cost:.2f}%"
            lines.append(
                ("pace", f"timed work took {_ms(pace.work_s)}; {costs} with each percent that it takes longer")
            )
    if loaded.measurement is not None:
        measured = loaded.measurement
        reasons = f", because {'; '.join(measured.reasons)}" if measured.reasons else ""
        lines.append(("verdict", f"{measured.verdict}{reasons}"))
    return [*lines, *(("note", note) for note in provenance.notes)]


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"
