"""Which running requests give their KV back when a decode step does not fit: SGLang's retract_decode
(``managers/schedule_batch.py``)."""

from dataclasses import dataclass, field

from .kv_pool import KvPool
from .request import ServerRequest
from .running_batch import RunningBatch
from .step import Step

__all__ = ["Retraction", "retract"]

_DECODE_STEPS = 20
"""Decode steps that a retraction makes room for (SGLANG_RETRACT_DECODE_STEPS)."""


@dataclass(slots=True)
class Retraction:
    """``retracted`` requests wait anew, in this order, for a prefill of prompt and outputs. ``out_of_memory`` did not
    fit even alone. The others keep ``outputs_and_room`` tokens, room for 20 steps included, of at most ``limits``."""

    retracted: list[ServerRequest] = field(default_factory=list)
    out_of_memory: ServerRequest | None = None
    outputs_and_room: int = 0
    limits: int = 0


def retract(running: RunningBatch, pool: KvPool, in_flight: Step | None) -> Retraction:
    """Take KV back from the requests with the fewest outputs (ties: longest prompt) until a decode step fits.

    They keep their outputs; a token in flight is lost. The cache does not take their KV over, because the room is
    needed now.
    """
    result = Retraction()
    outputs = _processed_outputs(running, in_flight)
    keep = sorted(running.requests, key=lambda request: (outputs[request], -request.prompt_tokens), reverse=True)
    while len(keep) > 1:
        request = keep.pop()
        _take_back(request, running, pool)
        request.generated = outputs[request]
        request.retractions += 1
        result.retracted.append(request)
        pool.reclaim(len(keep) * _DECODE_STEPS)
        if pool.reclaim(running.tokens_needed(1)):
            break
    if not pool.reclaim(running.tokens_needed(1)):
        result.out_of_memory = last = keep.pop()
        _take_back(last, running, pool)
        last.done = True
    result.outputs_and_room = sum(outputs[request] for request in keep) + _DECODE_STEPS * len(keep)
    result.limits = sum(request.max_new_tokens for request in keep)
    return result


def _processed_outputs(running: RunningBatch, in_flight: Step | None) -> dict[ServerRequest, int]:
    """Output tokens of the running requests, without those that the step in flight computes."""
    prefilling: set[ServerRequest] = set()
    if in_flight is not None:
        prefilling.update(request for request, *_ in in_flight.prefills)
    decoding = in_flight is not None and in_flight.decode_batch > 0
    return {request: running.outputs(request) - (decoding or request in prefilling) for request in running.requests}


def _take_back(request: ServerRequest, running: RunningBatch, pool: KvPool) -> None:
    running.withdraw(request)
    pool.release(request, request.computed, keep_tokens=0)
