"""A remote API simple enough to follow by hand."""

from typing import Any

from simcore.remote_profile import RemoteProfile

__all__ = ["api"]


def api(*, model: str = "m", **fields: Any) -> RemoteProfile:
    """Half a second to the first token, then 10 tokens/s; a million tokens cost 1 in and 2 out, and there is no limit,
    unless told otherwise."""
    return RemoteProfile.model_validate(
        {
            "schema_version": 1,
            "kind": "remote_api",
            "name": "api",
            "model": model,
            "source": "made up for a test",
            "first_token_s": 0.5,
            "output_tps": 10,
            "price": {"input_per_million": 1, "output_per_million": 2},
            **fields,
        }
    )
