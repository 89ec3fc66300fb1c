"""What the documentation takes from the code: commands, keys, policies, profiles, columns, each as Markdown."""

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import click
from scenario_tables import scenario_tables

import simroute
from policies import policy_descriptions
from policies.controllers import controller_descriptions
from policies.queue_orders import QUEUE_ORDERS
from simcore.measures import measure_names
from simcore.profile import ServiceProfile, bundled_profiles
from simcore.records import CAP_DTYPES, ITL_DTYPES, REQUEST_DTYPES, SERVER_DTYPES, TIMELINE_DTYPES
from simcore.remote_profile import RemoteProfile, bundled_apis, load_profile
from simcore.scenario import Scenario, load_scenario
from simcore.scenario_file import bundled_scenarios

__all__ = ["REFERENCE_PARTS"]


def commands() -> str:
    """Every command with its options."""
    return "\n\n".join(_command(simroute.main, "simroute", None))


def _command(command: click.Command, name: str, parent: click.Context | None) -> list[str]:
    context = click.Context(command, info_name=name, parent=parent)
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [f"### `{context.command_path}`", f"```\n{context.command_path} {usage}\n```", _paragraphs(command.help)]
    records = [record for parameter in command.get_params(context) if (record := parameter.get_help_record(context))]
    if records:
        parts.append(_table(["option", "meaning"], [[f"`{_cell(option)}`", _cell(text)] for option, text in records]))
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            parts += _command(found, child, context)
    return parts


def policies(folder: str) -> str:
    """The bundled policies, each with a link to its page in the folder."""
    rows = [
        [f"[`{policy.name}`]({folder}{policy.name}.md)", _cell(policy.summary), _cell(policy.source)]
        for policy in policy_descriptions()
    ]
    return _table(["policy", "sends a request to", "from"], rows)


def queue_orders() -> str:
    """The bundled queue orders."""
    rows = [[f"`{name}`", _cell(order.summary), _cell(order.source)] for name, order in QUEUE_ORDERS.items()]
    return _table(["order", "next is", "from"], rows)


def controllers() -> str:
    """The bundled controllers: definition, when each helps and hurts, parameters."""
    parts = []
    for controller in controller_descriptions():
        rows = [
            [f"`{parameter.name}`", parameter.type, f"`{parameter.default}`", _cell(parameter.meaning)]
            for parameter in controller.parameters
        ]
        needs = ", ".join(f"`{need}`" for need in controller.needs) or "nothing that servers report"
        parts += [
            f"### `{controller.name}`",
            controller.definition.replace("``", "`"),
            f"**When it helps:** {_cell(controller.helps)}",
            f"**When it hurts:** {_cell(controller.hurts)}",
            _table(["parameter", "type", "default", "meaning"], rows),
            f"Needs {needs}. Source: {controller.source}.",
        ]
    return "\n\n".join(parts)


def scenarios() -> str:
    """The bundled scenarios."""
    names = bundled_scenarios()
    return _table(["scenario", "what it is"], [[f"`{name}`", _cell(load_scenario(name).description)] for name in names])


def profiles() -> str:
    """The bundled profiles with their residuals."""
    rows = []
    for name in bundled_profiles():
        profile = ServiceProfile.load(name, Path())
        source, residuals = profile.provenance, profile.residuals
        shares = [f"{part.mape:.1%}" if part else "none" for part in (residuals.decode, residuals.prefill)]
        engine = f"{source.engine} {source.engine_version}"
        rows.append([f"`{name}`", source.model, source.gpu, engine, f"{profile.kv_tokens_capacity:,}", *shares])
    headings = ["profile", "model", "GPU", "kernels of", "KV tokens", "decode error", "prefill error"]
    return _table(headings, rows)


def remote_apis() -> str:
    """The bundled remote APIs with what they cost and how fast they are."""
    rows = []
    for name in bundled_apis():
        profile = load_profile(name, Path())
        assert isinstance(profile, RemoteProfile)
        price = f"{profile.price.input_per_million:g}, {profile.price.output_per_million:g}"
        limits = [profile.requests_per_minute, profile.tokens_per_minute]
        shown = ["none" if limit is None else f"{limit:,.0f}" for limit in limits]
        rows.append(
            [f"`{name}`", profile.model, f"{profile.first_token_s:g} s", f"{profile.output_tps:g}", price, *shown]
        )
    headings = ["API", "model", "first token", "tokens/s", "price in, out", "requests/min", "tokens/min"]
    return _table(headings, rows)


def records() -> str:
    """The columns of the parquet files."""
    files: Mapping[str, Mapping[str, str]] = {
        "requests.parquet": REQUEST_DTYPES,
        "servers.parquet": SERVER_DTYPES,
        "timeline.parquet": TIMELINE_DTYPES,
        "itl.parquet": ITL_DTYPES,
        "caps.parquet": CAP_DTYPES,
    }
    rows = [
        [f"`{file}`", ", ".join(f"`{name}` {dtype}" for name, dtype in columns.items())]
        for file, columns in files.items()
    ]
    return _table(["file", "columns"], rows)


def measures() -> str:
    """The names of the measures that runs can be ranked by."""
    return ", ".join(f"`{name}`" for name in measure_names())


REFERENCE_PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "commands": commands,
    "scenario": lambda: scenario_tables(Scenario),
    "scenarios": scenarios,
    "policies": lambda: policies("policies/"),
    "policies beside": lambda: policies(""),
    "policies from the root": lambda: policies("docs/policies/"),
    "queue orders": queue_orders,
    "controllers": controllers,
    "profiles": profiles,
    "remote apis": remote_apis,
    "records": records,
    "measures": measures,
}


def _table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("| --- ", "|---").replace("|--- |", "|---|")


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|")


def _paragraphs(text: str | None) -> str:
    """A docstring's text; click's marker of a paragraph that keeps its lines becomes a block."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(f"```\n{p[2:]}\n```" if p.startswith("\b\n") else p.replace("``", "`") for p in paragraphs)
