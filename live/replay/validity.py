"""Whether a live run proves anything, and ``live.json``, which says so."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from live.routing.event_log import Replay
from live.routing.fleet import Member

from .connecting import server_note
from .tables import Counters

__all__ = ["Course", "write_notes"]

LATE_S = 0.010
"""A run is invalid when the 99th percentile of the generator's lateness is more."""

EMULATOR_LATE_S = 0.050
"""... or when an emulated server ever fell behind its pace by more."""


@dataclass(frozen=True, slots=True)
class Course:
    """How a run went: the generator's lateness (spread, wall clock), what the servers counted, the ``speed`` of
    emulators, and why the run was given up, if it was."""

    lateness: Mapping[str, float]
    counters: Mapping[str, Counters]
    speed: float
    gone: str | None

    @property
    def behind_s(self) -> float:
        """By how much an emulator was behind its pace at most, wall clock."""
        return max((said.get("late_s", 0.0) for said in self.counters.values()), default=0.0) / self.speed

    @property
    def invalid(self) -> str | None:
        """Why the run proves nothing, if it does not."""
        if self.gone is not None:
            return self.gone
        late_s, behind_s = self.lateness["p99_s"], self.behind_s
        if late_s > LATE_S:
            return (
                f"the generator was late: 1% of requests by more than {late_s * 1e3:.1f} ms (bound {LATE_S * 1e3:g} ms)"
            )
        if behind_s > EMULATOR_LATE_S:
            return f"an emulator fell behind its pace by {behind_s * 1e3:.0f} ms (bound {EMULATOR_LATE_S * 1e3:g} ms)"
        return None


def write_notes(file: Path, course: Course, members: Sequence[Member], proof: Replay) -> None:
    """Write ``live.json``."""
    emulated = any(member.facts.is_emulator for member in members)
    document = {
        "valid": course.invalid is None,
        "invalid_because": course.invalid,
        "emulated": emulated,
        "generator_lateness": course.lateness,
        "emulators_behind_s": course.behind_s if emulated else None,
        "speed": course.speed,
        "event_log": {"events": proof.events, "decisions": proof.decisions, "replay_identical": True},
        "servers": [server_note(member) for member in members],
    }
    file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
