import random

from policies import ClusterView, Decision, Hold, Policy, RequestView, Route


class StaticBatches(Policy):
    summary = "a server without a batch under way, which gets up to `size` requests and no more until all have ended"

    def __init__(self, rng: random.Random, size: int = 16) -> None:
        super().__init__(rng)
        self.size = size
        self.sent: dict[str, int] = {}

    def choose(self, request: RequestView, cluster: ClusterView) -> Decision:
        for server in cluster.servers:
            sent = self.sent.get(server.server_id, 0) if server.in_flight_requests else 0
            # A batch is open until the first of it ends.
            if sent < self.size and server.in_flight_requests == sent:
                self.sent[server.server_id] = sent + 1
                return Route(server.server_id)
        return Hold()
