"""A policy's page, from what its class says of itself."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from policies import PolicyDescription, Span, policy_descriptions
from policies.parameters import Search

__all__ = ["POLICY_PARTS"]


def page(policy: PolicyDescription) -> str:
    """Definition, when it helps and when it hurts, parameters, needs, source, as Markdown."""
    sections = [
        f"# {policy.name}",
        policy.summary[0].upper() + policy.summary[1:] + ".",
        policy.definition.replace("``", "`"),
        f"**When it helps:** {_line(policy.helps)}",
        f"**When it hurts:** {_line(policy.hurts)}",
    ]
    if policy.parameters:
        rows = [
            f"| `{p.name}` | {p.type} | `{p.default}` | {p.meaning} | {_searched(p.search)} |"
            for p in policy.parameters
        ]
        headings = ["| parameter | type | default | meaning | tuned within |", "|---|---|---|---|---|"]
        sections.append("\n".join([*headings, *rows]))
    needs = ", ".join(f"`{need}`" for need in policy.needs) or "nothing beyond the router's own counts"
    order = "" if policy.order == "fcfs" else f" Its queue order is `{policy.order}`, unless the scenario names one."
    sections += [
        f"Needs {needs}.{order}",
        f"Source: {policy.source}.",
        f"```sh\nsimroute sim --scenario quickstart --policy {policy.name}\n```",
        "[All policies](README.md)",
    ]
    return "\n\n".join(sections)


def _searched(search: Search | None) -> str:
    match search:
        case None:
            return ""
        case Span(low, high, log):
            return f"{low:g} to {high:g}{', by its logarithm' if log else ''}"
        case tuple():
            return ", ".join(f"`{choice}`" for choice in search)
        case _:
            return "; ".join(f"`{key}` {_searched(span)}" for key, span in search.items())


def _line(text: str) -> str:
    line = " ".join(text.split()).replace("``", "`")
    return line[0].upper() + line[1:]


POLICY_PARTS: Final[Mapping[str, Callable[[], str]]] = {
    f"policy {policy.name}": partial(page, policy) for policy in policy_descriptions()
}
"""By the name of the part, ``policy NAME``."""
