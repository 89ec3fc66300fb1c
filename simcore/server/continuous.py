"""A server with continuous batching on the simulated clock.

A step takes its time on the GPU; at its end the scheduler takes its result in and the next begins. Without overlap
scheduling the next step is formed then. With it (SGLang's default) the next step was formed when this one began;
nothing that happens in between can change it, so it is formed here at the end too, from what had arrived by the
beginning.

Decode steps that change nothing but lengths are a run: their total time is a closed form, and one event ends them. A
request that arrives during a run cuts it at the boundary from which on it can matter. A prefill step and the run of
decode steps after it, formed when the prefill begins, are known together then and need one event. ``exact_steps`` makes
every step a run and an event of its own.
"""

import math

import numpy as np

from simcore.clock import Clock
from simcore.launch import SchedulerSettings
from simcore.profile_parts import ValidRange
from simcore.step_time import StepTimes

from .interface import OUT_OF_MEMORY, QUEUE_IS_FULL, Listener, Load
from .request import ServerRequest
from .scheduler import Scheduler
from .step import Step
from .telemetry import Telemetry

__all__ = ["ContinuousServer"]

_NOBODY: tuple[tuple[float, int], ...] = ()


class ContinuousServer:
    """SGLang's scheduler driven by step times. ``noise_cv``: coefficient of variation of the time of a run of steps.

    ``looks_past``: take a prefill's result in as it begins, with the event that does so saved. Not for a server whose
    telemetry is read while it runs: it would tell of what has not happened yet. ``sums_latencies``: for reports
    (``Telemetry``).
    """

    def __init__(
        self,
        clock: Clock,
        server_id: str,
        listener: Listener,
        settings: SchedulerSettings,
        kv_tokens_capacity: int,
        times: StepTimes,
        *,
        exact_steps: bool = False,
        looks_past: bool = True,
        sums_latencies: bool = True,
        noise_cv: float = 0.0,
        valid_range: ValidRange | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.server_id = server_id
        self.telemetry = Telemetry(valid_range)
        self.scheduler = Scheduler(settings, kv_tokens_capacity)
        self._clock = clock
        # Bound once: that costs more than the call.
        self._wake = self._on_wake
        self._listener = listener
        self._tells_first_tokens = listener.wants_first_tokens
        self._times = times
        self._overlap = settings.overlap
        self._exact_steps = exact_steps
        self._sums_latencies = sums_latencies
        self._noise_sigma = math.sqrt(math.log1p(noise_cv**2))
        self._rng = rng
        self._noise = 1.0
        # Requests on their way to the scheduler, by the time they are ready; few at a time.
        self._inbox: list[ServerRequest] = []
        self._cancelled: list[ServerRequest] = []
        # Changes of the cap on their way to it, by their time.
        self._limits: list[tuple[float, int]] = []
        self._run: Step | None = None
        # When the next wake-up is due; those that come at other times are void.
        self._due_at = -1.0
        # A queue limit refuses requests at the very boundary at which they come, so none may be passed over.
        self._max_queued_requests = settings.max_queued_requests
        self._lets_in_late = settings.overlap and self._max_queued_requests is None
        self._looks_past = looks_past and self._lets_in_late and not exact_steps
        self._before_prefill = (0, 0, 0, 0)
        self._gaps_before_prefill = (0.0, 0)
        self._looked_ahead = False
        self._ahead: Step | None = None
        self._decoded_at = 0.0
        # When requests got their first tokens since the last decode step, and how many.
        self._fresh: tuple[tuple[float, int], ...] = _NOBODY

    # -- from the engine -----------------------------------------------------------------------------------------

    @property
    def peak_kv_tokens(self) -> int:
        """See ``Server``."""
        pool = self.scheduler.pool
        return max(pool.peak_used, pool.used)

    def submit(self, request: ServerRequest, now: float) -> None:
        """See ``Server``."""
        inbox = self._inbox
        ready_at = request.ready_at
        inbox.append(request)
        if self._run is None:
            if inbox[0] is request:
                self._wake_at(ready_at)
        elif self._run.steps > 1 and not self._admission_is_shut():
            self._cut(self._run, ready_at)

    def cancel(self, request: ServerRequest, now: float) -> None:
        """See ``Server``."""
        run = self._run
        self._cancelled.append(request)
        if run is None:
            self._wake_at(now)
        elif now < run.started_at:
            # Within a prefill whose result is taken in: this is the boundary at its end.
            self._drop_cancelled()
            self._cut(run, now)
        elif run.steps > 1:
            self._cut(run, now)

    def load(self, now: float) -> Load:
        """See ``Server``."""
        scheduler, run = self.scheduler, self._run
        if run is not None and (now < run.started_at or self._looked_ahead):
            running, waiting, used, generated = self._before_prefill
            return Load(running, waiting + len(self._inbox), used, generated, *self._gaps_before_prefill)
        queued = len(scheduler.waiting) + len(self._inbox)
        used, generated = scheduler.pool.used, scheduler.generated_tokens
        gap_sum_s, gaps = self.telemetry.gap_sum_s, self.telemetry.gaps
        if run is not None and run.steps > 1:
            steps = run.steps_begun(now) - 1
            used += scheduler.running.tokens_needed(steps)
            generated += steps * run.decode_batch
            if steps and self._sums_latencies:
                gap_sum_s += self._gap_sum_s(run, run.end(steps))
                gaps += steps * run.decode_batch
        return Load(scheduler.running_requests, queued, used, generated, gap_sum_s, gaps)

    def set_max_running_requests(self, limit: int, now: float) -> None:
        """Change the server's own admission cap from the next step that is formed on; nothing is preempted."""
        self._limits.append((now, limit))

    # -- the loop ------------------------------------------------------------------------------------------------

    def _on_wake(self, now: float, _: None) -> None:
        """The end of a run, or the end of idleness: take results in, and start what comes next."""
        if now != self._due_at:
            return
        self._due_at = -1.0
        scheduler, run, ahead = self.scheduler, self._run, self._ahead
        # While it is told of results the engine may submit the next request: as to an idle server.
        self._run = self._ahead = None
        if run is not None:
            if run.steps > 1:
                scheduler.advance(run.steps - 1)
            if self._overlap and not self._looked_ahead:
                if self._inbox or self._limits:
                    # What arrives as a prefill begins comes after it was formed, by one event or the other.
                    begun = run.end(run.steps - 1)
                    self._ingest(math.nextafter(begun, -math.inf) if run.prefills else begun)
                ahead = scheduler.form(run)
            self._looked_ahead = False
            self._finish(run, now)
        if self._inbox or self._limits:
            self._ingest(now)
        if self._cancelled:
            self._drop_cancelled()
        step = ahead or scheduler.form(None)
        if scheduler.retracted:
            self._count_retractions(now)
        if step is not None:
            self._start(step, now)
        else:
            self._wait()

    def _wait(self) -> None:
        if self._inbox:
            self._wake_at(self._inbox[0].ready_at)
        if not self.scheduler.waiting:
            self.scheduler.idle()

    def _count_retractions(self, now: float) -> None:
        scheduler = self.scheduler
        self.telemetry.retractions += scheduler.retracted
        scheduler.retracted = 0
        for request in scheduler.out_of_memory:
            self._listener.failed(self, request, OUT_OF_MEMORY, now)
        scheduler.out_of_memory.clear()

    def _ingest(self, until: float) -> None:
        """Let in what has reached the scheduler by then."""
        while self._limits and self._limits[0][0] <= until:
            self.scheduler.max_running_requests = self._limits.pop(0)[1]
        inbox, waiting, limit = self._inbox, self.scheduler.waiting, self._max_queued_requests
        while inbox and inbox[0].ready_at <= until:
            request = inbox.pop(0)
            if limit is not None and len(waiting) >= limit:
                request.done = True
                self._listener.failed(self, request, QUEUE_IS_FULL, until)
            else:
                waiting.append(request)

    def _drop_cancelled(self) -> None:
        for request in self._cancelled:
            if request in self._inbox:
                # The scheduler does not know it yet.
                self._inbox.remove(request)
                request.done = True
            else:
                self.scheduler.cancel(request)
        self._cancelled.clear()

    def _start(self, step: Step, now: float) -> None:
        """Run a step, or as many equal ones as come until a request ends or the next one known of arrives."""
        self._run = step
        step.started_at = now
        if step.changed and self._noise_sigma:
            self._noise = self._draw_noise()
        if step.prefills:
            for request, _, _, _ in step.prefills:
                if request.started_at < 0:
                    request.started_at = now
            step.first_s = self._prefill_s(step) * self._noise
            if self._looks_past:
                self._look_past(step, now + step.first_s)
            else:
                self._wake_at(now + step.first_s)
            return
        batch, times, noise = step.decode_batch, self._times, self._noise
        context_s = times.decode_context_s[batch] * noise
        step.slope_s = context_s * batch
        step.first_s = first_s = times.decode_base_s[batch] * noise + context_s * step.context_tokens
        steps = 1 if self._exact_steps else self.scheduler.trivial_steps(step)
        if steps > 1:
            step.steps = steps
            if self._inbox and not self._admission_is_shut():
                step.steps = steps = self._steps_until(step, self._inbox[0].ready_at)
            end = step.end(steps)
        else:
            end = now + first_s
        self._due_at = end
        self._clock.at(end, self._wake)

    def _draw_noise(self) -> float:
        """A lognormal factor of mean 1, for all steps until the batch changes."""
        assert self._rng is not None
        sigma = self._noise_sigma
        return math.exp(sigma * self._rng.standard_normal() - sigma**2 / 2)

    def _look_past(self, prefill: Step, end: float) -> None:
        """Form the step after a prefill as the prefill begins; if it decodes, take the prefill's result in already.

        Whatever is told of it is told for the time ``end``; nothing that arrives in between changes either step.
        """
        scheduler = self.scheduler
        pool = scheduler.pool
        self._before_prefill = (
            scheduler.running_requests,
            len(scheduler.waiting),
            pool.capacity - pool.free - pool.cache.evictable_tokens,
            scheduler.generated_tokens,
        )
        if self._sums_latencies:
            self._gaps_before_prefill = (self.telemetry.gap_sum_s, self.telemetry.gaps)
        ahead = scheduler.form(prefill)
        if scheduler.retracted:
            self._count_retractions(end)
        if ahead is not None and not ahead.prefills:
            self._finish(prefill, end)
            self._start(ahead, end)
            return
        self._ahead, self._looked_ahead = ahead, True
        self._wake_at(end)

    def _prefill_s(self, step: Step) -> float:
        times = self._times
        cached_s = times.cached_s(start for _, start, _, _ in step.prefills) if times.has_cached_terms else 0.0
        if step.decode_batch:
            return cached_s + times.mixed_s(step.new_tokens, step.attended, step.decode_batch, step.context_tokens)
        return cached_s + times.prefill_s(step.new_tokens, step.attended)

    def _finish(self, run: Step, now: float) -> None:
        """Take the results of a run in and tell of them."""
        telemetry, scheduler = self.telemetry, self.scheduler
        if run.decode_batch:
            if self._sums_latencies:
                telemetry.count_gaps(self._gap_sum_s(run, now), run.steps * run.decode_batch)
            telemetry.steps.add(run, now, self._decoded_at, self._fresh)
            self._decoded_at, self._fresh = now, _NOBODY
        else:
            telemetry.steps.add_prefill(run, now)
        if run.prefills and scheduler.running_requests > telemetry.peak_running:
            telemetry.peak_running = scheduler.running_requests
        first, ended = scheduler.process(run)
        going_on = 0
        for request in first:
            request.first_token_at = now
            telemetry.cached_tokens += request.cached_tokens
            if self._sums_latencies:
                telemetry.count_first_token(request, now)
            if self._tells_first_tokens:
                self._listener.first_token(self, request, now)
            if not request.done:
                going_on += 1
        if going_on:
            self._fresh = (*self._fresh, (now, going_on))
        for request in ended:
            self._listener.ended(self, request, now)

    def _gap_sum_s(self, run: Step, until: float) -> float:
        """From each decoding request's last token before the run to its token at ``until``, all together."""
        joined = sum(count for _, count in self._fresh)
        since = self._decoded_at * (run.decode_batch - joined) + sum(at * count for at, count in self._fresh)
        return run.decode_batch * until - since

    # -- runs ----------------------------------------------------------------------------------------------------

    def _admission_is_shut(self) -> bool:
        """Whether an arrival changes nothing before a request leaves: the batch is full, and the queue has no limit."""
        return self.scheduler.batch_is_full and self._max_queued_requests is None

    def _steps_until(self, run: Step, ready_at: float) -> int:
        """The steps of a run up to the boundary at which a request ready then can matter.

        That is the end of the step under way at that time; under overlap scheduling the one after is formed already,
        and the request is let in, as of the first boundary, at the end of that.
        """
        steps = run.steps_begun(ready_at) if ready_at > run.started_at else 0
        if self._lets_in_late and not self._cancelled:
            steps += 1
        if steps < run.steps:
            return steps or 1
        return run.steps

    def _cut(self, run: Step, at: float) -> None:
        steps = self._steps_until(run, at)
        if steps < run.steps:
            run.steps = steps
            self._wake_at(run.end(steps))

    def _wake_at(self, time_s: float) -> None:
        self._due_at = time_s
        self._clock.at(time_s, self._wake)
