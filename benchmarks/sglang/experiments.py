"""What is validated: experiments, each one call of ``simroute validate``, and the bounds that must hold in them."""

from dataclasses import dataclass

__all__ = ["BURSTS", "Bar", "Experiment"]

BURSTS = "benchmarks/sglang/held_out/bursts.yaml"
CONVERSATIONS = "benchmarks/sglang/held_out/conversations.yaml"


@dataclass(frozen=True)
class Bar:
    """A bound in words, and the gate that fails where it does not hold."""

    words: str
    gate: str


@dataclass(frozen=True)
class Experiment:
    """One call of ``simroute validate``: what for, with which options, and what must hold."""

    name: str
    question: str
    scenario: str
    options: tuple[str, ...]
    bars: tuple[Bar, ...]
    repeats: int

    @classmethod
    def policies(cls, rates: str, below: float) -> "Experiment":
        """Six policies at four rates, the last of them more than the servers can take."""
        return cls(
            "policies",
            "Six policies at 40%, 70%, 90% and 110% of capacity, heavy-tailed answers",
            "validation-sglang-cpu",
            ("--rates", rates),
            _policy_bars(below),
            repeats=3,
        )

    @classmethod
    def bursts(cls, rates: str, below: float) -> "Experiment":
        """Six policies, three of them others, under a load that nothing was chosen for."""
        return cls(
            "bursts",
            "Held out: six policies at 40%, 70%, 90% and 110% of capacity, requests in bursts",
            BURSTS,
            ("--rates", rates),
            _policy_bars(below),
            repeats=2,
        )

    @classmethod
    def conversations(cls) -> "Experiment":
        """Sessions whose prompts grow, under a load that nothing was chosen for."""
        return cls("conversations", "Held out: conversations", CONVERSATIONS, (), _prefix_bars(), repeats=3)

    @classmethod
    def prefixes(cls) -> "Experiment":
        """How much of shared prompts is found in the caches."""
        return cls("prefixes", "Shared system prompts", "validation-sglang-cpu-prefix", (), _prefix_bars(), repeats=3)

    @classmethod
    def caps(cls, scenario: str) -> "Experiment":
        """Whether E2E follows a cap over time."""
        bars = (
            Bar("E2E over time within 10%", "series_e2e_s>0.1"),
            Bar("mean E2E within 5%", "mean_e2e_s>0.05"),
        )
        return cls("caps", "A cap that changes in mid-run", scenario, (), bars, repeats=2)

    @classmethod
    def node(cls, batches: str) -> "Experiment":
        """One server under continuous and static batches."""
        options = ("--policies", "round_robin", "--policy", batches, "--concurrency", "1,4,32", "--requests", "6")
        free = ("--set", "router.max_running_requests=null", "--set", "warmup_s=0")
        return cls(
            "node",
            "One server, continuous against static batches, 1 to 32 clients in a closed loop",
            "validation-sglang-cpu",
            (*options, *free),
            _latency_bars("", ""),
            repeats=2,
        )

    @classmethod
    def rates(cls, rates: str, below: float) -> "Experiment":
        """One GPU from little load to too much."""
        return cls(
            "rates",
            "One server at 40%, 70%, 90% and 110% of capacity",
            "validation-gpu",
            ("--policies", "round_robin", "--rates", rates),
            _latency_bars(f" below {below:g}", ", below saturation"),
            repeats=3,
        )

    @classmethod
    def closed_loop(cls) -> "Experiment":
        """One GPU from one client to more than it runs at once on most."""
        options = ("--policies", "round_robin", "--concurrency", "1,4,16,64,256", "--requests", "16")
        return cls(
            "closed-loop",
            "One server, 1 to 256 clients in a closed loop",
            "validation-gpu",
            (*options, "--set", "warmup_s=0"),
            _latency_bars("", ""),
            repeats=2,
        )

    @classmethod
    def order(cls, rates: str, cap: int) -> "Experiment":
        """Shortest job first against first come, first served, where a queue builds up at the router."""
        orders = ("mean_ttft_s", "mean_e2e_s", "p99_e2e_s")
        bars = tuple(Bar(f"order by {name}: tau 1 apart from ties", f"tau_{name}<1") for name in orders)
        return cls(
            "order",
            f"Shortest job first against first come, first served, {cap} requests running at most",
            "validation-gpu",
            (
                *("--policies", "round_robin,shortest_job_first", "--rates", rates),
                *("--set", f"router.max_running_requests={cap}"),
            ),
            (*bars, Bar("mean E2E within 5%", "mean_e2e_s>0.05")),
            repeats=3,
        )

    @classmethod
    def retraction(cls) -> "Experiment":
        """A pool too small for what is admitted."""
        bars = (Bar("retractions within 20%", "retractions>0.2"), Bar("mean E2E within 8%", "mean_e2e_s>0.08"))
        return cls(
            "retraction",
            "A KV pool too small for what is admitted, on one server",
            "validation-sglang-cpu-retraction",
            (),
            bars,
            repeats=2,
        )


def _policy_bars(below: float) -> tuple[Bar, ...]:
    orders = ("mean_ttft_s", "mean_tpot_s", "mean_e2e_s", "p99_e2e_s", "request_throughput_rps")
    return (
        *_latency_bars(f" below {below:g}", ", below saturation"),
        *(Bar(f"order by {name}: tau 1 apart from ties", f"tau_{name}<1") for name in orders),
    )


def _prefix_bars() -> tuple[Bar, ...]:
    return (Bar("cache hit rate within 3 points", "cache_hit_rate>0.03"), *_latency_bars("", ""))


def _latency_bars(scope: str, in_words: str) -> tuple[Bar, ...]:
    return (
        Bar("mean TPOT within 3%", "mean_tpot_s>0.03"),
        Bar("mean E2E within 5%", "mean_e2e_s>0.05"),
        Bar("throughput within 3%", "request_throughput_rps>0.03"),
        Bar(f"mean TTFT within 10%{in_words}", f"mean_ttft_s>0.1{scope}"),
        Bar(f"p99 TTFT within 20%{in_words}", f"p99_ttft_s>0.2{scope}"),
    )
