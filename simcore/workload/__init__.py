"""What the clients send: arrivals, lengths, sessions, prefixes and traces.

``WorkloadSpec`` is the scenario's section, ``build_workload`` turns it into the columns of a ``Workload``.
"""

from .build import build_workload
from .columns import NONE, Segments, Workload, answer_segment, prompt_segment
from .spec import WorkloadSpec

__all__ = ["NONE", "Segments", "Workload", "WorkloadSpec", "answer_segment", "build_workload", "prompt_segment"]
