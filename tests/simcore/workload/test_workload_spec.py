from typing import Any

import pytest
from pydantic import ValidationError

from simcore.workload import WorkloadSpec

FIXED = {"kind": "fixed", "tokens": 10}
GENERATED: dict[str, Any] = {
    "arrivals": {"kind": "poisson", "rate_rps": 1},
    "requests": 10,
    "lengths": {"prompt": FIXED, "output": FIXED},
}
TRACE: dict[str, Any] = {"trace": {"kind": "azure-2023", "path": "a.csv"}}
CLOSED: dict[str, Any] = {"arrivals": {"kind": "closed_loop", "max_concurrency": 4}}


@pytest.mark.parametrize("section", [GENERATED, TRACE, GENERATED | CLOSED, TRACE | CLOSED])
def test_a_section_survives_being_written_and_read(section: dict[str, Any]) -> None:
    spec = WorkloadSpec.model_validate(section)
    assert WorkloadSpec.model_validate(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({}, "give 'arrivals' and 'lengths' to generate requests, or a 'trace'"),
        (GENERATED | {"duration_s": 5}, "exactly one of 'requests' and 'duration_s'"),
        ({key: GENERATED[key] for key in ("arrivals", "lengths")}, "exactly one of 'requests' and 'duration_s'"),
        (GENERATED | CLOSED | {"requests": None, "duration_s": 5}, "needs 'requests', not 'duration_s'"),
        (GENERATED | CLOSED | {"max_concurrency": 5}, "a closed loop sets its own 'max_concurrency'"),
        (GENERATED | {"max_new_tokens": 64, "ignore_eos": True}, "needs 'max_new_tokens: exact'"),
        (GENERATED | {"max_new_tokens": "all"}, "should be 'exact'"),
        (GENERATED | {"requests": 0}, "greater than or equal to 1"),
        (GENERATED | {"requests": 1.5}, "fractional part"),
        (GENERATED | {"request": 5}, "Extra inputs are not permitted"),
        (GENERATED | {"arrivals": {"kind": "posson", "rate_rps": 1}}, "'poisson', 'gamma', 'constant', 'bursty'"),
        (GENERATED | TRACE, "'requests' is for generated requests; 'trace.limit'"),
        (TRACE | {"lengths": GENERATED["lengths"]}, "'lengths' is for generated requests; a trace has its own"),
        ({"trace": {"kind": "sharegpt", "path": "a"}}, "no times: say when requests arrive with 'arrivals'"),
        ({"trace": TRACE["trace"] | {"rate_scale": 2}} | CLOSED, "'trace.rate_scale' would do nothing"),
        ({"trace": TRACE["trace"] | {"rate_scale": 0}}, "greater than 0"),
        ({"trace": {"kind": "sharegpt", "path": "a", "rate_scale": 2}} | CLOSED, "Extra inputs"),
    ],
)
def test_a_contradiction_is_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        WorkloadSpec.model_validate(section)


def test_ignoring_the_end_of_sequence_goes_with_exact_answers() -> None:
    assert WorkloadSpec.model_validate(GENERATED).ends_by_length
    assert not WorkloadSpec.model_validate(GENERATED | {"ignore_eos": False}).ends_by_length
    assert not WorkloadSpec.model_validate(GENERATED | {"max_new_tokens": 64}).ends_by_length
