"""A server that becomes slower or faster at known times: its accelerator throttles, or its host serves others."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from simcore.profile_parts import Slowdown

from .continuous import ContinuousServer
from .step import Step

__all__ = ["SlowingServer"]


class SlowingServer(ContinuousServer):
    """A step takes as long as it does when it begins. ``slowdowns`` rise in ``at_s``; the rest as for the base."""

    def __init__(self, *arguments: Any, slowdowns: Sequence[Slowdown], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._changes_at = [one.at_s for one in slowdowns]
        self._times_since = [self._times, *(self._times.slowed(one.decode, one.prefill) for one in slowdowns)]

    def _start(self, step: Step, now: float) -> None:
        index = bisect_right(self._changes_at, now)
        self._times = self._times_since[index]
        super()._start(step, now)
        if step.steps > 1 and index < len(self._changes_at):
            steps = step.steps_begun(self._changes_at[index])
            if steps < step.steps:
                step.steps = steps
                self._wake_at(step.end(steps))
