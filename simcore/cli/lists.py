"""``simroute policies`` and ``simroute scenarios``: what there is to choose from."""

import json
import textwrap
from dataclasses import asdict
from pathlib import Path

import click

from policies import PolicyDescription, policy_class, policy_descriptions
from policies.controllers import controller_descriptions
from policies.queue_orders import QUEUE_ORDERS
from simcore.errors import UserError

__all__ = ["policies", "scenarios"]


@click.command(short_help="List the routing policies, queue orders and controllers; with a name, all about one policy.")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def policies(name: str | None, as_json: bool) -> None:
    """List the routing policies with their parameters, defaults and sources, the queue orders, and what changes caps.
    With the NAME of a
    policy: its definition, too, when it helps and when it hurts.

    \b
    A parameter is set behind the name:
      simroute sim --scenario quickstart --policy 'parameter_aware:queue_weight=2'
    Your own policy is a class in a file:
      simroute sim --scenario quickstart --policy my_policy.py:MyPolicy
    """
    descriptions = policy_descriptions()
    if name is not None:
        policy_class(name)  # Refuses a name that nothing has, and says what it may have meant.
        descriptions = [description for description in descriptions if description.name == name]
    if as_json:
        click.echo(json.dumps([asdict(description) for description in descriptions], indent=2))
        return
    for description in descriptions:
        _print_policy(description, with_texts=name is not None)
    if name is None:
        click.secho("Queue orders", bold=True)
        for order in QUEUE_ORDERS.values():
            _print_wrapped(f"{order.name}: {order.summary}", 2)
        click.secho("Controllers", bold=True)
        for controller in controller_descriptions():
            _print_wrapped(f"{controller.name}: {controller.summary}", 2)


def _print_policy(policy: PolicyDescription, *, with_texts: bool) -> None:
    click.secho(policy.name, bold=True)
    _print_wrapped(policy.summary, 2)
    if with_texts:
        texts = f"\n{policy.definition}\n\nHelps: {policy.helps}\nHurts: {policy.hurts}\n"
        click.echo(textwrap.indent(texts.replace("``", ""), "  "))
    for parameter in policy.parameters:
        _print_wrapped(f"{parameter.name}={parameter.default} ({parameter.type}): {parameter.meaning}", 4)
    if policy.needs:
        _print_wrapped(f"needs: {', '.join(policy.needs)}", 2)
    if policy.order != "fcfs":
        _print_wrapped(f"queue order: {policy.order}, unless the scenario names one", 2)
    if policy.source:
        _print_wrapped(f"source: {policy.source}", 2)
    click.echo()


def _print_wrapped(text: str, indent: int) -> None:
    space = " " * indent
    click.echo(click.wrap_text(text, width=100, initial_indent=space, subsequent_indent=space + "  "))


@click.group(invoke_without_command=True, short_help="List the bundled scenarios; show one, or copy it to start from.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def scenarios(ctx: click.Context, as_json: bool) -> None:
    """List the bundled scenarios; with a command, show one or copy it to start from.

    \b
    Examples:
      simroute scenarios
      simroute scenarios show quickstart
      simroute scenarios init quickstart my.yaml
    """
    if ctx.invoked_subcommand is not None:
        return
    from simcore.scenario import load_scenario
    from simcore.scenario_file import bundled_scenarios

    found = [load_scenario(name) for name in bundled_scenarios()]
    if as_json:
        described = [{"name": scenario.name, "description": scenario.description} for scenario in found]
        click.echo(json.dumps(described, indent=2, ensure_ascii=False))
        return
    for scenario in found:
        click.secho(scenario.name, bold=True)
        _print_wrapped(scenario.description, 2)


@scenarios.command()
@click.argument("name")
def show(name: str) -> None:
    """Print a bundled scenario's YAML, comments included."""
    from simcore.scenario_file import scenario_text

    click.echo(scenario_text(name), nl=False)


@scenarios.command()
@click.argument("name")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def init(name: str, file: Path) -> None:
    """Copy a bundled scenario to FILE, and beside it the schema by which editors check and complete it."""
    from simcore.scenario import json_schema
    from simcore.scenario_file import SCHEMA_FILE, scenario_text

    text = scenario_text(name)
    if file.suffix not in (".yaml", ".yml"):
        raise UserError(f"{file}: a scenario's file ends in .yaml")
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
        (file.parent / SCHEMA_FILE).write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
    except FileExistsError as error:
        raise UserError(f"{file}: is there already") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be written: {error.strerror}") from error
    click.echo(f"{file}: run it with `simroute sim --scenario {file}`", err=True)
