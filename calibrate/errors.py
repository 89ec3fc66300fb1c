"""What can go wrong with a server under measurement; each is one clear message, exit code 2."""

from simcore.errors import UserError

__all__ = ["ForeignTraffic", "NotSglang", "Refused", "ServerGone", "ServerMisbehaved"]


class ServerGone(UserError):
    """It does not answer, or closed the connection in the middle of an answer."""


class Refused(UserError):
    """It answers, but with a status that is an error."""


class NotSglang(UserError):
    """It answers as another engine does."""


class ForeignTraffic(UserError):
    """Requests that are not ours run on it."""


class ServerMisbehaved(UserError):
    """It answered what a measurement cannot be made of."""
