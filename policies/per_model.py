"""One policy a model: what it remembers of one model's servers has nothing to do with another's."""

from collections.abc import Callable, Mapping, Sequence

from .base import Policy
from .registry import make_policy
from .views import ClusterView, Decision, RequestView, ServerView

__all__ = ["PerModel", "per_model", "policy_for"]


class PerModel(Policy):
    """Asks and tells, for each request and server, the policy of its model.

    ``make`` gives the policy of the model with that number: those of ``models`` in order, and then in the order in
    which others join.
    """

    def __init__(self, make: Callable[[int], Policy], models: Sequence[str]) -> None:
        self._make = make
        self._first = first = make(0)
        self._policies: dict[str, Policy] = {}
        super().__init__(first.rng)
        for model in models:
            self._of(model)
        # What a class says of itself, this instance says of the policies within.
        self.name, self.needs, self.order = first.name, first.needs, first.order  # type: ignore[misc]

    def _of(self, model: str) -> Policy:
        policy = self._policies.get(model)
        if policy is None:
            policy = self._make(len(self._policies)) if self._policies else self._first
            self._policies[model] = policy
        return policy

    def choose(self, request: RequestView, cluster: ClusterView) -> Decision:
        """See ``Policy``."""
        return self._of(request.model).choose(request, cluster)

    def on_dispatch(self, request: RequestView, server: ServerView, now: float) -> None:
        """See ``Policy``."""
        self._of(request.model).on_dispatch(request, server, now)

    def on_first_token(self, request: RequestView, server: ServerView, now: float) -> None:
        """See ``Policy``."""
        self._of(request.model).on_first_token(request, server, now)

    def on_finish(self, request: RequestView, server: ServerView, now: float) -> None:
        """See ``Policy``."""
        self._of(request.model).on_finish(request, server, now)

    def on_report(self, server: ServerView, now: float) -> None:
        """See ``Policy``."""
        self._of(server.model).on_report(server, now)


def per_model(models: Sequence[str], name: str, params: Mapping[str, object], seed: int) -> Policy:
    """A policy by its name, as many times as there are and will be models; the first has the very ``seed``.

    Raises PolicyError.
    """
    return PerModel(lambda number: make_policy(name, params, seed + number), models)


def policy_for(models: Sequence[str], name: str, params: Mapping[str, object], seed: int) -> Policy:
    """The policy of a fleet to which no server of another model is added: it itself where there is one model, which
    decides as ``per_model``'s does and costs less. Raises PolicyError."""
    if len(set(models)) == 1:
        return make_policy(name, params, seed)
    return per_model(models, name, params, seed)
