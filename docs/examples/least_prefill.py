import random
from collections import defaultdict

from policies import ClusterView, Policy, RequestView, Route, ServerView


class LeastPrefill(Policy):
    """As ``least_request``, but a prompt that is still being read counts by its length."""

    summary = "the fewest requests in flight, of which prompts being read count by their length"
    parameters = {"prompt_weight": "how many requests 1,000 tokens of unread prompt count as"}  # noqa: RUF012

    def __init__(self, rng: random.Random, prompt_weight: float = 4.0) -> None:
        super().__init__(rng)
        self.prompt_weight = prompt_weight
        self.unread_tokens: defaultdict[str, int] = defaultdict(int)
        self.being_read: set[tuple[int, str]] = set()

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        scores = {server.server_id: self.load(server) for server in cluster.servers}
        least = min(scores.values())
        ties = [server_id for server_id, score in scores.items() if score == least]
        return Route(self.rng.choice(ties), scores)

    def load(self, server: ServerView) -> float:
        return server.in_flight_requests + self.prompt_weight * self.unread_tokens[server.server_id] / 1000

    def on_dispatch(self, request: RequestView, server: ServerView, now: float) -> None:
        self.being_read.add((request.request_id, server.server_id))
        self.unread_tokens[server.server_id] += request.prompt_tokens

    def on_first_token(self, request: RequestView, server: ServerView, now: float) -> None:
        self.has_been_read(request, server)

    def on_finish(self, request: RequestView, server: ServerView, now: float) -> None:
        # Also of a request that failed or was cancelled before its first token.
        self.has_been_read(request, server)

    def has_been_read(self, request: RequestView, server: ServerView) -> None:
        if (request.request_id, server.server_id) in self.being_read:
            self.being_read.remove((request.request_id, server.server_id))
            self.unread_tokens[server.server_id] -= request.prompt_tokens
