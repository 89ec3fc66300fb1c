"""The one exception for a user's mistake."""

__all__ = ["UserError"]


class UserError(Exception):
    """A mistake of the user's (a bad scenario, a missing trace, an unknown policy).

    The message is shown as it is, without a traceback, and the process exits with 2. Everything else that is raised is
    a defect of simroute and keeps its traceback.
    """
