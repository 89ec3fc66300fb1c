"""The command line: every command's name and where it is. No logic."""

import click

from simcore.cli.group import LazyGroup

__all__ = ["main"]

_COMMANDS = {
    "sim": "simcore.cli.sim:sim",
    "live": "live.replay.cli:live",
    "calibrate": "calibrate.cli:calibrate",
    "validate": "live.validation.cli:validate",
    "compare": "simcore.cli.compare:compare",
    "whatif": "simcore.cli.whatif:whatif",
    "tune": "simcore.cli.tune:tune",
    "policies": "simcore.cli.lists:policies",
    "scenarios": "simcore.cli.lists:scenarios",
    "profile": "simcore.cli.profile:profile",
    "serve": "live.service.cli:serve",
    "emulate": "live.emulator.cli:emulate",
    "check": "simcore.cli.check:check",
    "schema": "simcore.cli.check:schema",
}

main = click.version_option(package_name="simroute")(
    LazyGroup(
        name="simroute",
        commands_at=_COMMANDS,
        help="""Choose how LLM requests are routed over several GPUs.

        Simulates a router in front of SGLang servers, so that routing policies can be compared on the same requests,
        and puts the same router in front of real ones.

        \b
        Start here:
          simroute scenarios
          simroute sim --scenario quickstart

        Exit codes: 0 done, 1 a defect of simroute, 2 a mistake in what was given, 99 a --fail-on gate failed,
        130 interrupted.
        """,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
)

if __name__ == "__main__":
    main()
