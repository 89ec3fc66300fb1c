"""The one exception for a user's mistake."""

from policies.errors import did_you_mean

__all__ = ["UserError", "did_you_mean"]


class UserError(Exception):
    """A mistake of the user's (a bad scenario, a missing trace, an unknown policy).

    The message is shown as it is, without a traceback, and the process exits with 2. Everything else that is raised is
    a defect of simroute and keeps its traceback.
    """
