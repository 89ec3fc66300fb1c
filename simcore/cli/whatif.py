"""``simroute whatif``: the options, and what is done with them."""

from pathlib import Path
from typing import Any

import click

from .options import PolicyOption, json_option, no_out_option, out_option

__all__ = ["whatif"]


@click.command(short_help="Simulate a run's requests under other policies, caps or fleets.")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--policy", "policies", metavar="POLICY", type=PolicyOption(), multiple=True, help="Another policy; repeatable."
)
@click.option(
    "--set",
    "overrides",
    metavar="PATH=VALUE",
    multiple=True,
    help="Another value under servers, router, control or controller of the run's scenario; repeatable.",
)
@click.option("--profile", metavar="PROFILE", help="The servers' profile. Not given: the one that the run names.")
@out_option
@no_out_option
@json_option
def whatif(**options: Any) -> None:
    """Simulate a run's requests under other policies, caps or fleets.

    \b
    RUN is the folder of a live run or a simulated one. It is simulated as it was first, and how well that reproduces it
    is told: so far the rest can be trusted.
      simroute whatif results/RUN --policy least_request --policy parameter_aware
      simroute whatif results/RUN --set servers.0.count=6
      simroute whatif results/RUN --policy least_request --set router.max_running_requests=8
      simroute whatif results/LIVE_RUN --profile calibrated/profile.json

    The requests, their times of arrival, lengths and shared prefixes are the run's; of clients in a closed loop it is
    their number and their thinking times.
    """
    from .run_whatif import WhatIfRequest, carry_out

    carry_out(WhatIfRequest(**options))
