"""A server with static batching on the simulated clock: a batch waits for its slowest, and the next starts when it
ends.

Requests are taken first come first served, up to ``static_batch_size`` and as the KV pool holds their prompts and
answers whole. All are prefilled together and decode together; those that are done keep their rows until the last one
is, and all answers are returned then. There is no prefix cache, no chunking and no overlap.
"""

import math
from collections import deque

from simcore.clock import Clock
from simcore.launch import SchedulerSettings
from simcore.profile_parts import ValidRange
from simcore.step_time import StepTimes

from .interface import QUEUE_IS_FULL, Listener, Load
from .request import ServerRequest
from .step import Step
from .telemetry import Telemetry

__all__ = ["StaticServer"]


class StaticServer:
    """Batches of requests that start and end together."""

    def __init__(
        self,
        clock: Clock,
        server_id: str,
        listener: Listener,
        settings: SchedulerSettings,
        kv_tokens_capacity: int,
        times: StepTimes,
        *,
        valid_range: ValidRange | None = None,
    ) -> None:
        self.server_id = server_id
        self.telemetry = Telemetry(valid_range)
        self.peak_kv_tokens = 0
        self._clock = clock
        self._listener = listener
        self._times = times
        self._capacity = kv_tokens_capacity
        self._batch_size = settings.static_batch_size or settings.max_running_requests
        self._timeout_s = settings.static_batch_timeout_s or 0.0
        self._max_queued = settings.max_queued_requests
        self._inbox: deque[ServerRequest] = deque()
        self._waiting: deque[ServerRequest] = deque()
        self._batch: list[ServerRequest] = []
        self._decode: Step | None = None
        self._wake = 0
        self._generated_tokens = 0

    def submit(self, request: ServerRequest, now: float) -> None:
        """See ``Server``."""
        self._inbox.append(request)
        self._clock.at(request.ready_at, self._on_ready)

    def cancel(self, request: ServerRequest, now: float) -> None:
        """See ``Server``. A request in the batch keeps its row to the end."""
        request.done = True
        if request in self._waiting:
            self._waiting.remove(request)

    def load(self, now: float) -> Load:
        """See ``Server``."""
        used = sum(request.fill_tokens for request in self._batch)
        rows = 0
        if self._decode is not None:
            rows = (self._decode.steps_begun(now) - 1) * len(self._batch)
        queued = len(self._waiting) + len(self._inbox)
        gap_sum_s, gaps = self.telemetry.gap_sum_s, self.telemetry.gaps
        return Load(len(self._batch), queued, used + rows, self._generated_tokens + rows, gap_sum_s, gaps)

    def _on_ready(self, now: float, _: None) -> None:
        request = self._inbox.popleft()
        if request.done:
            return
        if self._max_queued is not None and len(self._waiting) >= self._max_queued:
            request.done = True
            self._listener.failed(self, request, QUEUE_IS_FULL, now)
            return
        self._waiting.append(request)
        if not self._batch:
            self._start_when_due(now)

    def _on_timeout(self, now: float, wake: int) -> None:
        if wake == self._wake and not self._batch:
            self._start_when_due(now)

    def _start_when_due(self, now: float) -> None:
        if not self._waiting:
            return
        due_at = self._waiting[0].ready_at + self._timeout_s
        if len(self._waiting) >= self._batch_size or now >= due_at:
            self._start(now)
        else:
            self._wake += 1
            self._clock.at(due_at, self._on_timeout, self._wake)

    def _start(self, now: float) -> None:
        """Take what fits, whole, and prefill it."""
        reserved = 0
        while self._waiting and len(self._batch) < self._batch_size:
            request = self._waiting[0]
            reserved += request.prompt_tokens + request.max_new_tokens
            if self._batch and reserved > self._capacity:
                break
            request.started_at = now
            self._batch.append(self._waiting.popleft())
        step = Step(0, 0, [(request, 0, request.prompt_tokens, 0) for request in self._batch])
        step.new_tokens = sum(request.prompt_tokens for request in self._batch)
        step.attended = sum(request.prompt_tokens**2 / 2 for request in self._batch)
        prefill_s = self._times.prefill_s(step.new_tokens, step.attended)
        step.started_at, step.first_s = now, prefill_s
        self.telemetry.steps.add_prefill(step, now + prefill_s)
        self.peak_kv_tokens = max(self.peak_kv_tokens, step.new_tokens)
        self.telemetry.peak_running = max(self.telemetry.peak_running, len(self._batch))
        self._clock.at(now + prefill_s, self._on_prefilled)

    def _on_prefilled(self, now: float, _: None) -> None:
        batch = self._batch
        for request in batch:
            if not request.done:
                request.first_token_at = now
                self._generated_tokens += 1
                self.telemetry.cached_tokens += request.cached_tokens
                self.telemetry.count_first_token(request, now)
                if self._listener.wants_first_tokens:
                    self._listener.first_token(self, request, now)
        steps = max(request.output_tokens for request in batch) - 1
        context = sum(request.prompt_tokens + 1 for request in batch)
        if steps == 0:
            self._end(now)
            return
        context_s = self._times.decode_context_s[len(batch)]
        self._decode = step = Step(len(batch), context)
        step.started_at, step.steps = now, steps
        step.first_s = self._times.decode_base_s[len(batch)] + context_s * context
        step.slope_s = context_s * len(batch)
        self._clock.at(step.end(steps), self._on_decoded)

    def _on_decoded(self, now: float, _: None) -> None:
        run = self._decode
        assert run is not None
        self._decode = None
        used = run.context_tokens + (run.steps - 1) * run.decode_batch
        self.peak_kv_tokens = max(self.peak_kv_tokens, used)
        self._generated_tokens += run.steps * run.decode_batch
        telemetry = self.telemetry
        telemetry.steps.add(run, now, math.nan)
        step_s, gaps = (now - run.started_at) / run.steps, sum(r.output_tokens - 1 for r in self._batch)
        telemetry.steps.add_gaps(step_s, gaps)
        telemetry.count_gaps(step_s * gaps, gaps)
        self._end(now)

    def _end(self, now: float) -> None:
        ended, self._batch = self._batch, []
        for request in ended:
            if not request.done:
                request.done = True
                self._listener.ended(self, request, now)
        if not self._batch:
            self._start_when_due(now)
