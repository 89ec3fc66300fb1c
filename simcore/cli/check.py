"""``simroute check`` and ``simroute schema``: for those who write scenarios."""

import json

import click

from .options import overrides_option

__all__ = ["check", "schema"]


@click.command(short_help="Check a scenario without running it.")
@click.argument("scenario")
@overrides_option
def check(scenario: str, overrides: tuple[str, ...]) -> None:
    """Check a scenario, its profiles, policies and traces, without running it.

    \b
    SCENARIO is the name of a bundled one or the path of a .yaml file. The first mistake is told with its line.
      simroute check my.yaml
      simroute check quickstart --set servers.0.count=8
    """
    from simcore.experiment.check import check_experiment, check_workload
    from simcore.scenario import load_scenario

    loaded = load_scenario(scenario, overrides)
    servers = check_experiment(loaded)
    requests = check_workload(loaded)
    policies = ", ".join(policy.label for policy in loaded.policies)
    click.echo(f"{loaded.name} is valid: {len(requests)} requests, {len(servers)} servers, policies {policies}")


@click.command(short_help="Print the JSON schema of scenario files, for editors.")
def schema() -> None:
    """Print the JSON schema of scenario files.

    \b
    An editor that speaks to yaml-language-server checks and completes a scenario that begins with
      # yaml-language-server: $schema=scenario.schema.json
    with the schema beside it:
      simroute schema > scenario.schema.json
    """
    from simcore.scenario import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
