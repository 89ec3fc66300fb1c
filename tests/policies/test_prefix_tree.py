"""The radix tree, by hand and beside a plain model of it."""

from hypothesis import given, settings
from hypothesis import strategies as st
from support.choices import blocks, request

from policies import RequestView
from policies.prefix_memory import PrefixMemory
from policies.prefix_tree import PrefixTree


def test_what_was_sent_is_matched_as_far_as_it_is_equal() -> None:
    tree = PrefixTree()
    tree.insert(blocks("abcdef"), "s0", 0.0)
    tree.insert(blocks("abcxy"), "s1", 1.0)
    assert tree.matches(blocks("abcdefg")) == {"s0": 6, "s1": 3}
    assert tree.matches(blocks("abcx")) == {"s0": 3, "s1": 4}
    assert tree.matches(blocks("ab")) == {"s0": 2, "s1": 2}
    assert tree.matches(blocks("abq")) == {"s0": 2, "s1": 2}
    assert tree.matches(blocks("q")) == {}
    assert tree.matches(()) == {}
    assert dict(tree.sizes) == {"s0": 6, "s1": 5}


def test_equal_blocks_behind_different_ones_are_not_shared() -> None:
    tree = PrefixTree()
    tree.insert(blocks("ab"), "s0", 0.0)
    tree.insert(blocks("xb"), "s0", 0.0)
    assert tree.sizes["s0"] == 4


def test_the_longest_match_belongs_to_who_has_held_it_longest_of_those_asked_for() -> None:
    tree = PrefixTree()
    tree.insert(blocks("abcd"), "s0", 0.0)
    tree.insert(blocks("abcd"), "s1", 1.0)
    tree.insert(blocks("ab"), "s2", 2.0)
    assert tree.longest(blocks("abcde"), {"s0", "s1", "s2"}) == ("s0", 4)
    assert tree.longest(blocks("abcde"), {"s1", "s2"}) == ("s1", 4)
    assert tree.longest(blocks("abcde"), {"s2"}) == ("s2", 2)
    assert tree.longest(blocks("abx"), {"s0", "s1", "s2"}) == ("s0", 2)
    assert tree.longest(blocks("abx"), {"s9"}) is None
    assert tree.longest(blocks("x"), {"s0"}) is None


def test_the_least_recently_used_goes_first_and_leaves_before_what_they_share() -> None:
    tree = PrefixTree()
    tree.insert(blocks("ab12"), "s0", 0.0)
    tree.insert(blocks("ab34"), "s0", 1.0)
    tree.insert(blocks("zz"), "s0", 2.0)
    tree.insert(blocks("ab12"), "s1", 3.0)
    assert tree.sizes["s0"] == 8
    tree.evict("s0", 6)
    assert tree.matches(blocks("ab12")) == {"s0": 2, "s1": 4}
    tree.evict("s0", 4)
    assert tree.matches(blocks("ab34")) == {"s0": 2, "s1": 2}
    tree.evict("s0", 3)
    assert tree.matches(blocks("ab")) == {"s1": 2}
    assert tree.matches(blocks("zz")) == {"s0": 2}
    assert tree.sizes == {"s0": 2, "s1": 4}


def test_use_keeps_what_is_old() -> None:
    tree = PrefixTree()
    tree.insert(blocks("aa"), "s0", 0.0)
    tree.insert(blocks("bb"), "s0", 1.0)
    tree.insert(blocks("aa"), "s0", 2.0)
    tree.evict("s0", 2)
    assert tree.matches(blocks("aa")) == {"s0": 2}
    assert tree.matches(blocks("bb")) == {}


def test_what_nobody_used_for_long_expires() -> None:
    tree = PrefixTree()
    tree.insert(blocks("ab"), "s0", 0.0)
    tree.insert(blocks("abc"), "s1", 5.0)
    tree.expire(5.0)
    assert tree.matches(blocks("abc")) == {"s1": 3}
    tree.expire(5.1)
    assert tree.matches(blocks("abc")) == {}
    assert not tree._root.children, "nothing is kept that nobody holds"


prompts = st.text("ab", min_size=1, max_size=6)


class Model:
    """A set of prefixes a server, each with its last use; the oldest that no longer one hangs on is dropped first."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, int]] = {"s0": {}, "s1": {}}

    def insert(self, prompt: str, server: str, now: int) -> None:
        self.held[server].update({prompt[:end]: now for end in range(1, len(prompt) + 1)})

    def matches(self, prompt: str) -> dict[str, int]:
        found = {
            server: max((end for end in range(len(prompt) + 1) if prompt[:end] in held), default=0)
            for server, held in self.held.items()
        }
        return {server: depth for server, depth in found.items() if depth}

    def expire(self, before: int) -> None:
        for server, held in self.held.items():
            self.held[server] = {prompt: used for prompt, used in held.items() if used >= before}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(prompts, st.sampled_from(["s0", "s1"]), st.integers(0, 3)), max_size=30))
def test_it_knows_what_a_plain_list_of_prefixes_knows(steps: list[tuple[str, str, int]]) -> None:
    tree, model = PrefixTree(), Model()
    for now, (prompt, server, age) in enumerate(steps):
        tree.insert(blocks(prompt), server, now)
        model.insert(prompt, server, now)
        if age == 3:
            tree.expire(now - 4)
            model.expire(now - 4)
        for asked, _, _ in steps:
            assert tree.matches(blocks(asked)) == model.matches(asked)
        assert {server: size for server, size in tree.sizes.items() if size} == {
            server: len(held) for server, held in model.held.items() if held
        }


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(prompts, min_size=1, max_size=30), st.integers(0, 8))
def test_eviction_keeps_the_bound_and_drops_no_more_than_it_must(given_prompts: list[str], most: int) -> None:
    tree = PrefixTree()
    for now, prompt in enumerate(given_prompts):
        tree.insert(blocks(prompt), "s0", now)
        before = tree.sizes["s0"]
        tree.evict("s0", most)
        assert tree.sizes["s0"] <= most
        if before <= most:
            assert tree.sizes["s0"] == before
        assert tree.matches(blocks(prompt)).get("s0", 0) == min(len(prompt), tree.sizes["s0"])


def view(text: str) -> RequestView:
    return request(blocks=blocks(text))


def test_memory_is_bounded_at_once_or_at_intervals() -> None:
    at_once, at_times = PrefixMemory(128), PrefixMemory(128, every_s=60.0)
    for memory in (at_once, at_times):
        memory.sent(view("ab"), "s0", 1.0)
        memory.sent(view("cd"), "s0", 2.0)
    assert at_once.cached_blocks(view("ab"), 2.0) == {}
    assert at_once.cached_blocks(view("cd"), 2.0) == {"s0": 2}
    assert at_times.tree.sizes["s0"] == 4
    at_times.sent(view("cd"), "s1", 60.0)
    assert at_times.tree.sizes == {"s0": 2, "s1": 2}
    assert at_times.cached_blocks(view("ab"), 60.0) == {}


def test_memory_forgets_after_its_time() -> None:
    memory = PrefixMemory(ttl_s=10.0)
    memory.sent(view("ab"), "s0", 0.0)
    memory.sent(view("cd"), "s1", 10.0)
    assert memory.cached_blocks(view("ab"), 10.0) == {"s0": 2}
    memory.sent(view("cd"), "s1", 10.5)
    assert memory.cached_blocks(view("ab"), 10.5) == {}


def test_memory_learns_after_the_delay_of_events() -> None:
    memory = PrefixMemory(delay_s=0.5)
    memory.sent(view("ab"), "s0", 1.0)
    assert memory.cached_blocks(view("ab"), 1.4) == {}
    assert memory.cached_blocks(view("ab"), 1.5) == {"s0": 2}
