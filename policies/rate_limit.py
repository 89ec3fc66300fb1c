"""A limit on requests and tokens per minute, as remote APIs have it: the router's account of it, and the API's own."""

__all__ = ["RateLimit"]

_MINUTE_S = 60.0


class RateLimit:
    """Two accounts, each of one minute's allowance, which refill evenly; None: no limit of that kind.

    A request may go while one whole request is left and the tokens are not overdrawn. It takes one request and its
    tokens, which may overdraw their account: what comes next waits longer then, so a request of any size can go and
    the mean over a long time is the limit. After a pause a whole minute's allowance may go at once.

    Kept as the times at which the accounts will be full again, which makes ``opens_at`` exact.
    """

    __slots__ = ("_request_s", "_requests_full_at", "_token_s", "_tokens_full_at", "opens_at")

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._request_s = _MINUTE_S / requests_per_minute if requests_per_minute is not None else 0.0
        self._token_s = _MINUTE_S / tokens_per_minute if tokens_per_minute is not None else 0.0
        self._requests_full_at = 0.0
        self._tokens_full_at = 0.0
        self.opens_at = 0.0

    def take(self, now: float, tokens: int) -> None:
        """A request of so many tokens, prompt and answer together, goes; ``opens_at`` tells when the next one may."""
        self._requests_full_at = max(self._requests_full_at, now) + self._request_s
        self._tokens_full_at = max(self._tokens_full_at, now) + self._token_s * tokens
        self._set_opening()

    def push_back(self, until: float, tokens: int) -> None:
        """The API sent a request of so many tokens back, which ``take`` had counted. It has room again at ``until``:
        for one request, and then for as much as refills."""
        self._requests_full_at -= self._request_s
        self._tokens_full_at -= self._token_s * tokens
        if self._request_s:
            self._requests_full_at = max(self._requests_full_at, until + _MINUTE_S - self._request_s)
        if self._token_s:
            self._tokens_full_at = max(self._tokens_full_at, until + _MINUTE_S)
        self._set_opening()
        self.opens_at = max(self.opens_at, until)

    def _set_opening(self) -> None:
        requests_at = self._requests_full_at - _MINUTE_S + self._request_s if self._request_s else 0.0
        tokens_at = self._tokens_full_at - _MINUTE_S if self._token_s else 0.0
        self.opens_at = max(requests_at, tokens_at, 0.0)
