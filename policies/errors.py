"""The one exception for a policy that cannot be found, built or trusted."""

import difflib
from collections.abc import Iterable

__all__ = ["PolicyError", "did_you_mean"]


class PolicyError(Exception):
    """An unknown policy, a wrong parameter, or a decision that the router cannot carry out.

    The message is for the user; the command line shows it without a traceback and exits with 2.
    """


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the known one that looks most like it, or nothing."""
    close = difflib.get_close_matches(given, sorted(known), 1)
    return f"; did you mean {close[0]}?" if close else ""
