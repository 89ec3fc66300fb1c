"""The server model of simcore on the wall clock: steps end when their time has come, and tokens go out then."""

import math
from asyncio import TimerHandle
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import numpy as np

from live.clock import WallClock
from simcore.clock import Clock
from simcore.fleet import Member, build_fleet
from simcore.remote_profile import AnyProfile
from simcore.server.continuous import ContinuousServer
from simcore.server.interface import Server
from simcore.server.remote import RemoteServer
from simcore.server.request import ServerRequest

from .tokens import VOCABULARY, Tokens, TokenStore

__all__ = ["Engine", "Generation"]

_KEPT_PROMPTS = 4
"""Prompts are remembered up to so many times the KV pool's tokens."""


@dataclass(slots=True, eq=False)
class Generation:
    """One request at the emulator. ``on_tokens`` is called with the number of tokens computed so far, whenever it has
    grown; ``on_end`` with a reason when the server gave the request up, else with None."""

    rid: str
    prompt: Tokens
    answer: Tokens
    max_new_tokens: int
    ignore_eos: bool
    on_tokens: Callable[[int], None]
    on_end: Callable[[str | None], None]
    model_request: ServerRequest | None = None
    received_at: float = 0.0
    computed: int = 0


class Engine:
    """One emulated server. Times are in the profile's seconds, which ``clock.speed`` makes go by faster.

    ``late_s`` is the most that a step ended after its time, in those seconds; the machine was too slow for the pace
    then.
    """

    wants_first_tokens = True

    def __init__(self, clock: WallClock, profile: AnyProfile, server_id: str, seed: np.random.SeedSequence) -> None:
        self.clock = clock
        self.profile = profile
        self.late_s = 0.0
        self._model = Clock()
        model_seed, answer_seed = seed.spawn(2)
        self.member: Member = build_fleet(self._model, self, [profile], model_seed, exact_steps=True, reported=True)[0]
        self.member.server.server_id = server_id
        self._rng = np.random.default_rng(answer_seed)
        self._store = TokenStore(_KEPT_PROMPTS * self.member.kv_tokens_capacity)
        self._ids = count()
        self._flights: dict[int, Generation] = {}
        self._timer: TimerHandle | None = None
        self._armed_for = math.inf

    # -- from the protocol ---------------------------------------------------------------------------------------

    @property
    def generations(self) -> list[Generation]:
        """Those under way."""
        return list(self._flights.values())

    def draw_answer(self, tokens: int) -> Tokens:
        """Content for an answer of that length."""
        return self._rng.integers(VOCABULARY, size=tokens, dtype=np.uint32)

    def limited_s(self) -> float:
        """How long a remote API takes no request for its limits; 0: it takes one now."""
        now, server = self.catch_up(), self.member.server
        return server.room_in_s(now) if isinstance(server, RemoteServer) else 0.0

    def submit(self, generation: Generation) -> None:
        """Take a request in; its prompt is no longer than ``member.max_prompt_tokens``."""
        now, member = self.catch_up(), self.member
        pieces = self._store.pieces(generation.prompt)
        request = ServerRequest(
            next(self._ids),
            pieces,
            len(generation.prompt),
            len(generation.answer),
            generation.max_new_tokens,
            self._store.answer(pieces, generation.answer),
            member.ingress.ready_at(now, len(generation.prompt)),
            ignore_eos=generation.ignore_eos,
        )
        generation.model_request, generation.received_at = request, now
        self._flights[request.request_id] = generation
        member.server.submit(request, now)
        self._arm()

    def cancel(self, generation: Generation) -> None:
        """Drop a request; its ``on_end`` is not called."""
        request = generation.model_request
        assert request is not None
        if self._flights.pop(request.request_id, None) is not None:
            self.member.server.cancel(request, self.catch_up())
            self._arm()

    def set_max_running_requests(self, limit: int) -> None:
        """SGLang's run-time cap; nothing is preempted."""
        server = self.member.server
        assert isinstance(server, ContinuousServer)
        server.set_max_running_requests(limit, self.catch_up())
        self._arm()

    def flush(self) -> bool:
        """Empty the prefix cache; False where requests are under way, which keep it."""
        self.catch_up()
        server = self.member.server
        if self._flights:
            return False
        if isinstance(server, ContinuousServer):
            pool = server.scheduler.pool
            pool.reclaim(pool.capacity)
        return True

    # -- the clock -----------------------------------------------------------------------------------------------

    def catch_up(self) -> float:
        """Let the model do all that is due by now; returns that time."""
        now = self.clock.now
        due = self._model.peek()
        if due <= now:
            self.late_s = max(self.late_s, now - due)
            self._model.run_until(now)
            self._tell_of_tokens()
        return now

    def _arm(self) -> None:
        """Wake up when the next step ends."""
        due = self._model.peek()
        if due == self._armed_for:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = due
        self._timer = None if due == math.inf else self.clock.at(due, self._on_due)

    def _on_due(self, due: float, _: None) -> None:
        self._timer, self._armed_for = None, math.inf
        self.catch_up()
        self._arm()

    def _tell_of_tokens(self) -> None:
        server = self.member.server
        if isinstance(server, ContinuousServer):
            computed_outputs = server.scheduler.computed_outputs
        elif isinstance(server, RemoteServer):
            computed_outputs = server.computed_outputs
        else:
            return
        for generation in self.generations:
            request = generation.model_request
            if request is not None and request.running:
                computed = computed_outputs(request)
                if computed > generation.computed:
                    generation.computed = computed
                    generation.on_tokens(computed)

    # -- from the model (Listener) -------------------------------------------------------------------------------

    def first_token(self, server: Server, request: ServerRequest, now: float) -> None:
        """See ``Listener``."""
        self._model.at(now + self.member.overheads.egress_s, self._on_first_token, request)

    def ended(self, server: Server, request: ServerRequest, now: float) -> None:
        """See ``Listener``."""
        self._model.at(now + self.member.overheads.back_s(request.output_tokens), self._on_ended, request)

    def failed(self, server: Server, request: ServerRequest, reason: str, now: float) -> None:
        """See ``Listener``."""
        generation = self._flights.pop(request.request_id, None)
        if generation is not None:
            generation.on_end(reason)

    def _on_first_token(self, now: float, request: ServerRequest) -> None:
        generation = self._flights.get(request.request_id)
        if generation is not None and generation.computed == 0 and request.output_tokens > 1:
            generation.computed = 1
            generation.on_tokens(1)

    def _on_ended(self, now: float, request: ServerRequest) -> None:
        generation = self._flights.pop(request.request_id, None)
        if generation is not None:
            generation.computed = request.output_tokens
            generation.on_end(None)
