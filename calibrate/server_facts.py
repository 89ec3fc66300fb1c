"""What a server says of itself: engine, model, limits and scheduler settings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from simcore.errors import UserError
from simcore.launch import SchedulePolicy, SchedulerSettings

from .client import SglangClient
from .errors import NotSglangError

__all__ = ["ServerFacts", "read_facts"]

_SPEED_ARGS = (
    "device",
    "dtype",
    "quantization",
    "kv_cache_dtype",
    "attention_backend",
    "sampling_backend",
    "load_format",
    "tp_size",
    "mem_fraction_static",
    "stream_interval",
    "load_snapshot_publish_interval",
    "num_continuous_decode_steps",
    "speculative_algorithm",
)


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """``args`` are the launch arguments that decide its speed; ``max_prompt_tokens`` the longest prompt it takes."""

    url: str
    model: str
    engine_version: str
    device: str
    kv_tokens_capacity: int
    context_length: int
    max_prompt_tokens: int
    settings: SchedulerSettings
    has_decode_moments: bool
    args: dict[str, str | int | float | bool | None]


async def read_facts(client: SglangClient) -> ServerFacts:
    """Ask the server. Raises UserError where it is not SGLang, or of a kind that the simulator does not model."""
    info = await client.get("/server_info")
    if not isinstance(info, dict) or "max_total_num_tokens" not in info or "internal_states" not in info:
        raise NotSglangError(f"{client.url}/server_info is not SGLang's: this is another engine")
    model = await client.get("/model_info")
    load = await client.load()
    if info.get("disaggregation_mode") not in (None, "null"):
        raise UserError(f"{client.url}: prefill/decode disaggregation is not modelled; calibrate a whole server")
    if info.get("speculative_algorithm"):
        raise UserError(f"{client.url}: speculative decoding is not modelled; launch the server without it")
    return ServerFacts(
        url=client.url,
        model=_model_name(info, model),
        engine_version=str(info["version"]),
        device=str(info.get("device")),
        kv_tokens_capacity=int(load["max_total_num_tokens"]),
        # SGLang refuses prompts of max_req_len - 5 tokens and more, and max_req_len is the context less one.
        context_length=int(info["max_req_input_len"]) + 6,
        max_prompt_tokens=int(info["max_req_input_len"]) - 1,
        settings=_settings(client.url, info, int(load["max_running_requests"])),
        has_decode_moments="decode_moments" in load,
        args={name: info.get(name) for name in _SPEED_ARGS},
    )


def _model_name(info: dict[str, Any], model: dict[str, Any]) -> str:
    name = str(info.get("served_model_name") or model.get("model_path"))
    # A folder on the server's disk says nothing elsewhere but its last part.
    return Path(name).name if name.startswith(("/", ".")) else name


def _settings(url: str, info: dict[str, Any], max_running_requests: int) -> SchedulerSettings:
    policy = str(info["schedule_policy"])
    if policy not in get_args(SchedulePolicy):
        known = ", ".join(get_args(SchedulePolicy))
        raise UserError(f"{url}: schedule_policy {policy!r} is not modelled; launch the server with one of {known}")
    radix = not info["disable_radix_cache"]
    graphs = (info.get("cuda_graph_config") or {}).get("decode", {})
    graph_batch = 0 if graphs.get("backend") == "disabled" else int(graphs.get("max_bs") or 0)
    return SchedulerSettings.model_validate(
        {
            "schedule_policy": policy if radix else "fcfs",
            "max_queued_requests": info.get("max_queued_requests"),
            "max_prefill_tokens": info["max_prefill_tokens"],
            "chunked_prefill_size": info["chunked_prefill_size"],
            "page_size": info["page_size"],
            "radix_cache": radix,
            "overlap": not info["disable_overlap_schedule"],
            "mixed_chunk": bool(info["enable_mixed_chunk"]),
            "schedule_conservativeness": info["schedule_conservativeness"],
            "max_running_requests": max_running_requests,
            "cuda_graph_max_batch": graph_batch,
        }
    )
