import random

from policies import ClusterView, Policy, RequestView, Route


class StickySessions(Policy):
    summary = "the server of the session's last turn, unless another has far fewer requests in flight"

    def __init__(self, rng: random.Random, patience: int = 8) -> None:
        super().__init__(rng)
        self.patience = patience
        self.home: dict[int | None, str] = {}

    def choose(self, request: RequestView, cluster: ClusterView) -> Route:
        least = min(cluster.servers, key=lambda server: server.in_flight_requests)
        servers = {server.server_id: server for server in cluster.servers}
        home = servers.get(self.home.get(request.session_id, ""), least)
        if home.in_flight_requests > least.in_flight_requests + self.patience:
            home = least
        self.home[request.session_id] = home.server_id
        return Route(home.server_id)
