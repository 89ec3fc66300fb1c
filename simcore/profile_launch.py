"""What a server launched with other parameters has: its settings and KV pool, resolved the way SGLang does."""

from dataclasses import dataclass

from pydantic import ValidationError

from .errors import UserError
from .kv_capacity import default_max_running_requests, default_mem_fraction_static, kv_tokens_capacity
from .launch import LaunchParameters, SchedulerSettings
from .profile_parts import GpuMemory

__all__ = ["Launched", "explain", "memory_kv_tokens"]

_MEMORY_SETTINGS = ("chunked_prefill_size", "max_prefill_tokens", "cuda_graph_max_batch", "page_size")


@dataclass(frozen=True, slots=True)
class Launched:
    """The part of a profile that launch parameters decide."""

    memory: GpuMemory | None
    kv_tokens_capacity: int
    context_length: int
    settings: SchedulerSettings

    def relaunched(self, launch: LaunchParameters) -> "Launched":
        """The same server with what ``launch`` gives changed. Raises UserError."""
        context_length = launch.context_length or self.context_length
        if context_length > self.context_length:
            raise UserError(f"context_length {context_length} is beyond the profile's {self.context_length}")
        running = launch.max_running_requests or self.settings.max_running_requests
        settings = self._settings(launch, running)
        memory = self._memory(launch)
        kv_tokens = self._kv_tokens(launch, memory, settings)
        running = self._running(launch, kv_tokens, context_length)
        settings = SchedulerSettings.model_validate(settings.model_dump() | {"max_running_requests": running})
        return Launched(memory, kv_tokens, context_length, settings)

    def _settings(self, launch: LaunchParameters, max_running_requests: int) -> SchedulerSettings:
        graph_batch = launch.cuda_graph_max_batch
        if graph_batch is None:
            graph_batch = self.settings.cuda_graph_max_batch
            if launch.max_running_requests is not None:
                graph_batch = min(graph_batch, launch.max_running_requests)
        resolved = {"max_running_requests": max_running_requests, "cuda_graph_max_batch": graph_batch}
        try:
            return SchedulerSettings.model_validate(self.settings.model_dump() | launch.scheduling_given() | resolved)
        except ValidationError as error:
            raise UserError(explain("launch parameters", error)) from error

    def _memory(self, launch: LaunchParameters) -> GpuMemory | None:
        if launch.kv_tokens_capacity is not None:
            return None
        if launch.mem_fraction_static is None:
            return self.memory
        if self.memory is None:
            raise UserError("mem_fraction_static needs a profile with a memory section; set kv_tokens_capacity instead")
        return self.memory.model_copy(update={"mem_fraction_static": launch.mem_fraction_static})

    def _kv_tokens(self, launch: LaunchParameters, memory: GpuMemory | None, settings: SchedulerSettings) -> int:
        kv_tokens = launch.kv_tokens_capacity or self.kv_tokens_capacity
        changed = memory != self.memory or _memory_settings(settings) != _memory_settings(self.settings)
        if memory is not None and changed:
            kv_tokens = memory_kv_tokens(memory, settings)
        if launch.max_total_tokens is not None:
            if launch.max_total_tokens > kv_tokens:
                raise UserError(
                    f"max_total_tokens {launch.max_total_tokens} exceeds the {kv_tokens} tokens that the memory holds; "
                    "kv_tokens_capacity sets the pool outright"
                )
            kv_tokens = launch.max_total_tokens
        kv_tokens = kv_tokens // settings.page_size * settings.page_size
        if kv_tokens < 2:
            raise UserError(f"a KV pool of {kv_tokens} tokens holds no request; page_size is {settings.page_size}")
        return kv_tokens

    def _running(self, launch: LaunchParameters, kv_tokens: int, context_length: int) -> int:
        """SGLang's default follows the pool; a limit that was set is only lowered to half the pool."""
        had = self.settings.max_running_requests
        if launch.max_running_requests is not None:
            return min(launch.max_running_requests, kv_tokens // 2)
        if had == default_max_running_requests(self.kv_tokens_capacity, self.context_length):
            return default_max_running_requests(kv_tokens, context_length)
        return min(had, kv_tokens // 2)


def memory_kv_tokens(memory: GpuMemory, settings: SchedulerSettings) -> int:
    """The KV pool that SGLang allocates, tokens. Raises UserError where the weights leave no room for one."""
    fraction = memory.mem_fraction_static
    if fraction is None:
        fraction = default_mem_fraction_static(
            memory.gpu_memory_mib,
            chunked_prefill_size=settings.chunked_prefill_size,
            max_prefill_tokens=settings.max_prefill_tokens,
            cuda_graph_max_batch=settings.cuda_graph_max_batch,
            prefill_graph_max_tokens=memory.prefill_graph_max_tokens,
        )
    tokens = kv_tokens_capacity(
        memory.gpu_memory_mib,
        runtime_mib=memory.runtime_mib,
        weight_bytes=memory.weight_bytes,
        kv_bytes_per_token=memory.kv_bytes_per_token,
        mem_fraction_static=fraction,
        page_size=settings.page_size,
    )
    if tokens <= 0:
        raise UserError(f"mem_fraction_static {fraction} leaves no GPU memory for the KV pool beside the weights")
    return tokens


def explain(subject: str, error: ValidationError) -> str:
    """A pydantic error as one line that names each field."""
    parts = []
    for detail in error.errors():
        field = ".".join(str(step) for step in detail["loc"])
        message = detail["msg"].removeprefix("Value error, ")
        parts.append(f"{field}: {message}" if field else message)
    return f"{subject}: " + "; ".join(parts)


def _memory_settings(settings: SchedulerSettings) -> tuple[object, ...]:
    return tuple(getattr(settings, name) for name in _MEMORY_SETTINGS)
