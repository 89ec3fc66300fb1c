"""SGLang's scheduler (``managers/scheduler.py`` of 0.5.23): which requests run in the next step.

``form`` is get_next_batch_to_run, ``process`` is process_batch_result. Between two changes of the batch every decode
step is like the one before; ``trivial_steps`` says for how long, and ``advance`` launches that many at once.

The scheduler has no clock. Under overlap scheduling its caller forms a step while the one before runs, that is before
it processes that one's result.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

from simcore.launch import SchedulerSettings

from .kv_pool import KvPool
from .prefill import CONTINUE, NO_BUDGET, NO_KV, PrefillAdder
from .request import ServerRequest
from .retraction import retract
from .running_batch import RunningBatch
from .step import Step
from .token_ratio import NewTokenRatio
from .waiting_order import WaitingOrder

__all__ = ["Scheduler"]

_NOTHING: tuple[Sequence[ServerRequest], Sequence[ServerRequest]] = ((), ())


class Scheduler:
    """State: ``waiting`` requests, at most one ``chunked`` in the middle of its prefill, and the ``running`` batch.

    ``batch_is_full`` is sticky: once admission has failed it is not tried again until a request leaves the batch.
    ``max_running_requests`` may be changed between steps (SGLang's pp_max_micro_batch_size); nothing is preempted.
    """

    def __init__(self, settings: SchedulerSettings, kv_tokens_capacity: int) -> None:
        # Read for every step, where the settings' own attributes cost as much as a call.
        self._mixed_chunk = settings.mixed_chunk
        self._max_prefill_tokens = settings.max_prefill_tokens
        self._chunked_prefill_size = settings.chunked_prefill_size
        self.max_running_requests = settings.max_running_requests
        self.pool = KvPool(kv_tokens_capacity, settings.page_size, radix_cache=settings.radix_cache)
        self.running = RunningBatch(settings.page_size)
        self.waiting: deque[ServerRequest] = deque()
        self.chunked: ServerRequest | None = None
        self.batch_is_full = False
        self.running_requests = 0
        """Requests that were admitted and have not left: decoding or in their prefill."""
        self.out_of_memory: list[ServerRequest] = []
        """Requests that did not fit even alone; the caller takes them away."""
        self.retracted = 0
        """Retractions since the caller last set it to 0; a request that did not fit alone counts."""
        self.generated_tokens = 0
        """Output tokens since the start: one out of each prefill, one of each decode row and step."""
        self._ratio = NewTokenRatio(settings.schedule_conservativeness)
        self._order = WaitingOrder(settings.schedule_policy, self.pool)
        self._prefilled: list[ServerRequest] = []
        self._ending: list[ServerRequest] = []
        self._processed = 0
        self._left = False
        self._changed = False

    def computed_outputs(self, request: ServerRequest) -> int:
        """Output tokens of a running request whose results are in."""
        return request.generated + 1 + max(self._processed - request.joined_at, 0)

    def idle(self) -> None:
        """Nothing runs and nothing waits: the reservation ratio starts anew."""
        self._ratio.reset()

    # -- forming a step ------------------------------------------------------------------------------------------

    def form(self, in_flight: Step | None) -> Step | None:
        """The next step, its KV allocated; None when there is nothing to run.

        ``in_flight`` is the step whose result is not processed yet, under overlap scheduling.
        """
        merged: Sequence[ServerRequest] = ()
        if self._prefilled or self.chunked is not None:
            merged = self._merge_prefilled()
        if self._left:
            self._left = self.batch_is_full = False
        step = None
        if self.waiting or self.chunked is not None:
            step = self._form_prefill(in_flight, merged)
        if step is None and self.running.size:
            step = self._form_decode(in_flight)
        if step is not None and (self._changed or step.prefills):
            step.changed, self._changed = True, False
        return step

    def _merge_prefilled(self) -> list[ServerRequest]:
        if self.chunked is not None:
            self.pool.checkpoint(self.chunked, self.chunked.computed)
            self.batch_is_full = False
        merged = []
        for request in self._prefilled:
            if not request.done:
                self.running.add(request)
                self._changed = True
                merged.append(request)
        self._prefilled = []
        return merged

    def _form_prefill(self, in_flight: Step | None, merged: Sequence[ServerRequest]) -> Step | None:
        batch = self.running.size
        if batch == 0:
            self.batch_is_full = False
        if self.chunked is None:
            if self.batch_is_full:
                return None
            if batch >= self.max_running_requests:
                self.batch_is_full = True
                return None
        if self._order.sorts:
            self._order.sort(self.waiting)
        mixed_tokens = batch if self._mixed_chunk else 0
        reserved = self._reserved(in_flight, merged)
        adder = PrefillAdder(self.pool, self._max_prefill_tokens, self._chunked_prefill_size, reserved, mixed_tokens)
        if self.chunked is not None:
            adder.continue_chunked(self.chunked)
        self._admit(adder)
        self.chunked = adder.chunked
        if not adder.prefills:
            return None
        self._prefilled = adder.completed
        self.pool.allocate(adder.allocated)
        step = adder.step
        if mixed_tokens:
            self._mix_decode(step)
        return step

    def _reserved(self, in_flight: Step | None, merged: Sequence[ServerRequest]) -> float:
        """What the running requests may still need, counted from the outputs processed: launched ones are still
        owed."""
        ratio = self._ratio.current()
        if in_flight is None or in_flight.decode_batch:
            return self.running.reserved_tokens(ratio, step_in_flight=in_flight is not None)
        owed = sum(1.0 if request.ignore_eos else ratio for request in merged)
        return self.running.reserved_tokens(ratio, step_in_flight=False) + owed

    def _admit(self, adder: PrefillAdder) -> None:
        """Move waiting requests into the step for as long as budgets, slots and KV last."""
        waiting, slots = self.waiting, self.max_running_requests - self.running.size
        # A step with nothing in it yet has room.
        verdict = adder.verdict() if adder.prefills or self._mixed_chunk else CONTINUE
        while waiting and verdict is not NO_BUDGET:
            before = len(adder.prefills)
            if before >= slots:
                self.batch_is_full = True
            if self.batch_is_full:
                return
            verdict = adder.try_add(waiting[0])
            if len(adder.prefills) > before:
                request = waiting.popleft()
                self.running_requests += 1
                if request.retractions == 0:
                    request.cached_tokens = adder.prefills[before][1]
            if verdict is NO_KV:
                self.batch_is_full = bool(adder.prefills) or bool(self.running.requests)
                return

    def _mix_decode(self, step: Step) -> None:
        """Let the running requests decode in a prefill step, if their tokens fit beside it."""
        if self._drop_ending():
            self.batch_is_full = False
        need = self.running.tokens_needed(1)
        if self.running.requests and self.pool.reclaim(need):
            self.pool.free -= need
            self.running.launched += 1
            step.decode_batch, step.context_tokens = self.running.size, self.running.context_tokens

    def _form_decode(self, in_flight: Step | None) -> Step | None:
        """All running requests, less those whose token in flight is their last; retracts where KV is short."""
        running = self.running
        ends = running.ends
        left = False
        if ends and ends[0][0] <= running.launched:
            left = self._drop_ending()
        if not running.size:
            self.batch_is_full = False
            return None
        need = running.size if self.pool.page_size == 1 else running.tokens_needed(1)
        if self.pool.free >= need or self.pool.reclaim(need):
            self._ratio.decode_steps += 1
        elif left:
            # Those in flight free their KV when this step ends: wait for it rather than retract.
            self.batch_is_full = False
            return None
        else:
            self._retract(in_flight)
            left = True
            need = running.tokens_needed(1)
        if left:
            self.batch_is_full = False
        if not running.requests:
            return None
        self.pool.free -= need
        running.launched += 1
        size = running.size
        return Step(size, running.tokens_at_zero + size * running.launched)

    def _drop_ending(self) -> bool:
        """Take requests whose last token is in flight out of the batch, where their length tells so in advance.

        One that will end by its own end-of-sequence token decodes once more, in vain.
        """
        running = self.running
        dropped = False
        for request in running.pop_ended(running.launched):
            self._ending.append(request)
            if request.ends_by_length():
                running.remove(request)
                self._changed = dropped = True
        return dropped

    def _retract(self, in_flight: Step | None) -> None:
        retraction = retract(self.running, self.pool, in_flight)
        self.waiting.extend(retraction.retracted)
        # The token in flight is lost, also where it would have been the last.
        self._ending = [request for request in self._ending if request not in retraction.retracted]
        self.retracted += len(retraction.retracted)
        self.running_requests -= len(retraction.retracted)
        if retraction.out_of_memory is not None:
            self.out_of_memory.append(retraction.out_of_memory)
            self.retracted += 1
            self.running_requests -= 1
        self._changed = True
        self._ratio.set_after_retraction(retraction.outputs_and_room, retraction.limits)

    # -- a run of equal steps ------------------------------------------------------------------------------------

    def trivial_steps(self, step: Step) -> int:
        """For how many steps, ``step`` included, nothing but the requests' lengths changes if nothing arrives.

        ``step`` is a decode step, formed last and not yet run. The last of the run is the first that ends a request.
        """
        running = self.running
        if self.chunked is not None or self._prefilled or self._ending or step.decode_batch != running.size:
            return 1
        if self.waiting and (self._left or not self.batch_is_full):
            return 1
        steps = running.ends[0][0] - running.launched + 1
        if steps <= 1:
            return 1
        available = self.pool.free + self.pool.cache.evictable_tokens
        # A bound that costs nothing first: every request takes at most a page more than it grows by.
        page = self.pool.page_size
        if (steps + page) * running.size > available and running.tokens_needed(steps - 1) > available:
            # The most launches that fit: tokens_needed rises with the number of steps.
            steps = bisect_right(range(steps), available, key=running.tokens_needed)
        return steps

    def advance(self, steps: int) -> None:
        """Launch that many more decode steps of the batch as it is."""
        running, pool = self.running, self.pool
        need = steps * running.size if pool.page_size == 1 else running.tokens_needed(steps)
        if pool.free < need:
            pool.reclaim(need)
        pool.free -= need
        running.launched += steps
        self._ratio.decode_steps += steps

    # -- results -------------------------------------------------------------------------------------------------

    def process(self, step: Step) -> tuple[Sequence[ServerRequest], Sequence[ServerRequest]]:
        """Take in the result of a step or run of steps.

        Returns the requests that got their first token, and those that are complete and have left.
        """
        if batch := step.decode_batch:
            steps = step.steps
            self._processed = processed = self._processed + steps
            self.generated_tokens += steps * batch
            ends = self.running.ends
            if ends and ends[0][0] <= processed:
                self._ending += self.running.pop_ended(processed)
        if not step.prefills and not self._ending:
            return _NOTHING
        first: list[ServerRequest] = []
        ended: list[ServerRequest] = []
        for request, _, stop, retractions in step.prefills:
            if request.done or request.retractions != retractions or stop != request.prompt_tokens + request.generated:
                continue
            self.generated_tokens += 1
            if request.generated == 0:
                first.append(request)
            if request.generated + 1 >= request.output_tokens:
                if request.running:
                    # It joined the batch while the step that gives its last token was in flight.
                    self.running.withdraw(request)
                ended.append(request)
                self._end(request)
            else:
                self.pool.checkpoint(request, stop)
        if self._ending:
            for request in self._ending:
                if not request.done:
                    ended.append(request)
                    self._end(request)
            self._ending = []
        return first, ended

    def _end(self, request: ServerRequest) -> None:
        """A complete request leaves; the KV of all but its last token stays cached."""
        if request.running:
            self.running.remove(request)
        self.running_requests -= 1
        self.pool.release(request, request.computed, keep_tokens=request.prompt_tokens + request.output_tokens - 1)
        request.done = self._left = self._changed = True

    def cancel(self, request: ServerRequest) -> None:
        """Take a request away, wherever it is; its KV is freed. Call it between steps."""
        if request.done:
            return
        request.done = True
        if request in self.waiting:
            self.waiting.remove(request)
            return
        self._left = self._changed = True
        self.running_requests -= 1
        if request.running:
            self.running.withdraw(request)
        if request is self.chunked:
            self.chunked = None
        self.pool.release(request, request.computed, keep_tokens=0)
