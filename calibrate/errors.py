"""What can go wrong with a server under measurement; each is one clear message, exit code 2."""

from simcore.errors import UserError

__all__ = ["ForeignTrafficError", "NotSglangError", "RefusedError", "ServerGoneError", "ServerMisbehavedError"]


class ServerGoneError(UserError):
    """It does not answer, or closed the connection in the middle of an answer."""


class RefusedError(UserError):
    """It answers, but with a status that is an error."""


class NotSglangError(UserError):
    """It answers as another engine does."""


class ForeignTrafficError(UserError):
    """Requests that are not ours run on it."""


class ServerMisbehavedError(UserError):
    """It answered what a measurement cannot be made of."""
