"""The one exception for a policy that cannot be found, built or trusted."""

__all__ = ["PolicyError"]


class PolicyError(Exception):
    """An unknown policy, a wrong parameter, or a decision that the router cannot carry out.

    The message is for the user; the command line shows it without a traceback and exits with 2.
    """
