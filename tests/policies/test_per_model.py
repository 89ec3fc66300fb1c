"""One policy a model, which hears of its own model alone."""

import random

from policies import ClusterView, Decision, Policy, RequestView, Route
from policies.ledger import ServerConfig, ServerState
from policies.per_model import PerModel, per_model, policy_for


def cluster(count: int) -> ClusterView:
    return ClusterView(0.0, [ServerState(ServerConfig(f"s{index}", "a"), index) for index in range(count)], 1)


def request(number: int, model: str) -> RequestView:
    return RequestView(number, model, 10, None, 0.0)


def test_turns_are_each_models_own() -> None:
    policy = per_model(["a", "b"], "round_robin", {}, seed=0)
    servers = cluster(2)
    chosen = [policy.choose(request(number, model), servers) for number, model in enumerate("abab")]
    assert chosen == [Route("s0"), Route("s0"), Route("s1"), Route("s1")]


def test_a_single_model_decides_as_the_policy_itself() -> None:
    servers = cluster(9)
    plain, alone = policy_for(["a", "a"], "random", {}, 7), per_model(["a"], "random", {}, 7)
    assert not isinstance(plain, PerModel), "it costs nothing where there is one model"
    for number in range(50):
        assert plain.choose(request(number, "a"), servers) == alone.choose(request(number, "a"), servers)


def test_random_streams_differ_by_model() -> None:
    policy = per_model(["a", "b"], "random", {}, seed=0)
    servers = cluster(9)
    chosen = {model: [policy.choose(request(0, model), servers) for _ in range(20)] for model in "ab"}
    assert chosen["a"] != chosen["b"]


def test_hooks_reach_the_policy_of_their_model() -> None:
    told: list[tuple[int, str]] = []

    class Listening(Policy):
        name = "listening"

        def __init__(self, number: int) -> None:
            super().__init__(random.Random(number))
            self.number = number

        def choose(self, request: RequestView, cluster: ClusterView) -> Decision:
            return Route("s0")

        def on_dispatch(self, request: RequestView, server: object, now: float) -> None:
            told.append((self.number, "dispatch"))

        def on_first_token(self, request: RequestView, server: object, now: float) -> None:
            told.append((self.number, "first token"))

        def on_finish(self, request: RequestView, server: object, now: float) -> None:
            told.append((self.number, "finish"))

        def on_report(self, server: object, now: float) -> None:
            told.append((self.number, "report"))

    policy = PerModel(Listening, ["a", "b"])
    one = ServerState(ServerConfig("s0", "b"), 0)
    for hook in (policy.on_dispatch, policy.on_first_token, policy.on_finish):
        hook(request(0, "b"), one, 0.0)
    policy.on_report(one, 0.0)
    assert told == [(1, "dispatch"), (1, "first token"), (1, "finish"), (1, "report")]
    policy.on_dispatch(request(1, "new"), one, 0.0)
    assert told[-1] == (2, "dispatch"), "a model that joins later gets its own"
