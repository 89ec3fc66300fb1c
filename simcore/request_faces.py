"""What the policy may see of a request, and what its server gets."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from policies import Policy, RequestView
from policies.predictors import RunningMean

from .fleet import Member
from .models import RequestModels
from .prompts import Prompts
from .scenario import Scenario
from .server.request import ServerRequest
from .workload import NONE, Workload, answer_segment
from .workload.columns import IntColumn
from .workload.outputs import RunningMeanExpectation

__all__ = ["RequestFaces", "request_faces"]

# A NamedTuple's own constructor is a function in Python; one is made for every request.
_request_view = partial(tuple.__new__, RequestView)


class RequestFaces:
    """Makes a request's two faces: what the policy may see of it, and what the server gets.

    ``missing`` has the fields that policies will not find in it. Where ``learns``, the length of each answer is to be
    told with ``answered``, for what is expected follows from it.
    """

    def __init__(self, scenario: Scenario, workload: Workload, model: str, policies: Sequence[Policy]) -> None:
        self._prompts = Prompts(workload)
        self._model = model
        self._slo = scenario.slo.bounds()
        self._ignore_eos = workload.ignore_eos
        self._shareable = workload.segments is not None
        self._with_hashes = any("prefix_hashes" in policy.needs for policy in policies)
        self._prompt_tokens: list[int] = workload.prompt_tokens.tolist()
        self._output_tokens: list[int] = workload.output_tokens.tolist()
        self._max_new_tokens: list[int] = workload.max_new_tokens.tolist()
        self._expected: list[int | None] | _Learnt = _optional(workload.expected_output_tokens)
        self._session: list[int | None] = _optional(workload.session_id)
        self._priority: list[int] = workload.priority.tolist()
        expectation = scenario.workload.expected_output
        self._predictor: RunningMean | None = None
        if isinstance(expectation, RunningMeanExpectation):
            self._predictor = RunningMean(expectation.start_tokens)
            limit = scenario.workload.output_limit
            self._expected = _Learnt(self._predictor, self._prompt_tokens, self._priority, limit)
        self.learns = self._predictor is not None
        unexpected = (workload.expected_output_tokens == NONE).any() and not self.learns
        self.missing = {"expected_output_tokens"} if unexpected else set()
        if not self._slo:
            self.missing.add("slo")

    def answered(self, request_id: int, output_tokens: int) -> None:
        """An answer is complete; only where ``learns``."""
        assert self._predictor is not None
        self._predictor.saw(self._prompt_tokens[request_id], self._priority[request_id], output_tokens)

    def view(self, request_id: int, now: float) -> RequestView:
        """What the policy sees."""
        return _request_view(
            (
                request_id,
                self._model,
                self._prompt_tokens[request_id],
                self._expected[request_id],
                now,
                self._prompts.prefix_hashes(request_id) if self._with_hashes else (),
                self._session[request_id],
                self._priority[request_id],
                self._slo,
            )
        )

    def at_server(self, request_id: int, member: Member, now: float) -> ServerRequest:
        """What the server gets, its answer clipped to what the server's limit on a request leaves
        (``scheduler.py``)."""
        prompt, max_new_tokens = self._prompt_tokens[request_id], self._max_new_tokens[request_id]
        output_tokens = self._output_tokens[request_id]
        if prompt + max_new_tokens >= member.max_request_tokens:
            max_new_tokens = max(member.max_request_tokens - prompt - 1, 1)
            output_tokens = min(output_tokens, max_new_tokens)
        return ServerRequest(
            request_id,
            self._prompts.pieces(request_id),
            prompt,
            output_tokens,
            max_new_tokens,
            answer_segment(request_id),
            member.ingress.ready_at(now, prompt),
            ignore_eos=self._ignore_eos,
            shareable=self._shareable,
        )


class _MixedFaces(RequestFaces):
    """Requests of several models. A class of its own, so that where there is one model nothing is looked up."""

    def __init__(self, scenario: Scenario, workload: Workload, models: list[str], policies: Sequence[Policy]) -> None:
        super().__init__(scenario, workload, models[0], policies)
        self._models = models

    def view(self, request_id: int, now: float) -> RequestView:
        """See ``RequestFaces``."""
        return super().view(request_id, now)._replace(model=self._models[request_id])


def request_faces(
    scenario: Scenario, workload: Workload, models: RequestModels, policies: Sequence[Policy]
) -> RequestFaces:
    """The faces of requests for one model or for several."""
    if models.only is not None:
        return RequestFaces(scenario, workload, models.only, policies)
    return _MixedFaces(scenario, workload, models.column().tolist(), policies)


class _Learnt:
    """In the place of a list of what is expected: asked when it is needed."""

    def __init__(
        self, predictor: RunningMean, prompt_tokens: list[int], priority: list[int], limit: int | None
    ) -> None:
        self._predictor = predictor
        self._prompt_tokens = prompt_tokens
        self._priority = priority
        self._limit = limit

    def __getitem__(self, request_id: int) -> int:
        expected = self._predictor.expected(self._prompt_tokens[request_id], self._priority[request_id])
        return expected if self._limit is None else min(expected, self._limit)


def _optional(column: IntColumn) -> list[int | None]:
    values: list[int | None] = column.tolist()
    for index in np.flatnonzero(column == NONE):
        values[index] = None
    return values
