"""A language model behind an OpenAI-compatible endpoint, as a judge of pairs of responses.

Every reply is stored as soon as it arrives, and costs are bounded. No stored reply is paid for
again; a killed process loses only the replies to the calls under way.
"""

from __future__ import annotations

import json
import os
import threading
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import openai
import pandas as pd
from tqdm import tqdm

from alignpro.judging.protocol import (
    SYSTEM_PROMPT,
    Outcome,
    Pair,
    Verdict,
    question,
    read_reply,
    table_row,
)
from alignpro.judging.store import StoreError, VerdictStore, request_key
from alignpro.sources.openai_client import (
    REFUSALS,
    ask_adapting,
    changed,
    clean,
    connect,
    hide_key,
)
from alignpro.sources.terminal import inert

# English text has about four bytes per token; three leaves room for other languages.
BYTES_PER_TOKEN = 3
# This many failed calls in a row, each after all its retries, mean that every call would fail.
FAILED_IN_A_ROW = 8
# Fields that the judge can do without: its replies are checked, and temperature 0 is a preference.
OPTIONAL = ("response_format", "temperature")


class JudgeError(RuntimeError):
    """Judging that cannot start or go on; the message says why and what to do."""


@dataclass(frozen=True)
class Estimate:
    """What is still to be asked.

    `calls` is the number of requests, `input_tokens` an estimate, `output_tokens` an upper bound.
    `cost` is in the currency of the prices, or None where the judge has no prices.
    """

    calls: int
    input_tokens: int
    output_tokens: int
    cost: float | None

    def __str__(self) -> str:
        tokens = f"about {self.input_tokens:,} tokens in, at most {self.output_tokens:,} out"
        cost = "" if self.cost is None else f", cost at most about {self.cost:.2f}"
        return f"{self.calls} calls to make: {tokens}{cost}"


class Judge:
    """A model behind an OpenAI-compatible endpoint that compares two responses at temperature 0.

    - model: its name at the endpoint.
    - base_url, api_key: default to OPENAI_BASE_URL and OPENAI_API_KEY. A local endpoint needs no
      key. The key stays inside the client: it is in no attribute, message, log or file.
    - system: the system prompt, by default ours.
    - max_tokens: the limit on one reply, in tokens. A model that thinks first needs more.
    - prices: for a million tokens in and out, in any currency.
    - concurrency: how many calls are under way at the same time.
    - timeout: for one attempt, in seconds.
    - retries: further attempts after a 429, a 5xx or a broken connection.
    - max_unreadable: stop when this many replies are no verdict and they are more than half of all
      replies; None never stops. A judge that answers in prose is thus noticed early.

    Request fields that the server refuses are adapted: `max_tokens` becomes
    `max_completion_tokens`, and the schema of the reply and the temperature are left out. Judging
    without temperature 0 gives a warning. Raises JudgeError without a key and without an endpoint.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        system: str = SYSTEM_PROMPT,
        max_tokens: int = 400,
        prices: tuple[float, float] | None = None,
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 6,
        max_unreadable: int | None = 8,
    ):
        base_url = base_url or os.environ.get("OPENAI_BASE_URL")
        api_key = api_key or os.environ.get("OPENAI_API_KEY")
        if not (base_url or api_key):
            raise JudgeError(
                "no key and no endpoint: set OPENAI_API_KEY, or OPENAI_BASE_URL to a local server"
            )
        self.model, self.system, self.max_tokens = model, system, max_tokens
        self.prices, self.concurrency, self.max_unreadable = prices, concurrency, max_unreadable
        self._client = connect(base_url, api_key, timeout, retries)
        self._changes: dict[str, str | None] = {}  # request fields that the server refused

    def __repr__(self) -> str:
        return f"Judge({self.model!r} at {urlsplit(str(self._client.base_url)).hostname})"

    def request(self, prompt: str, first: str, second: str) -> dict:
        """The body of the request that compares the responses `first` and `second`."""
        schema = {"name": "verdict", "strict": True, "schema": Verdict.model_json_schema()}
        return {
            "model": self.model,
            "messages": [
                {"role": "system", "content": self.system},
                {"role": "user", "content": question(prompt, first, second)},
            ],
            "temperature": 0,
            "max_tokens": self.max_tokens,
            "response_format": {"type": "json_schema", "json_schema": schema},
        }

    def estimate(self, pairs: Iterable[Sequence[str]], store: str | Path) -> Estimate:
        """What `compare` would still have to ask, with the same arguments."""
        requests = self._requests(_cleaned(pairs))
        with VerdictStore(store) as kept:
            return self._estimate([r for k, r in requests.items() if kept.get(k) is None])

    def compare(
        self,
        pairs: Iterable[Sequence[str]],
        store: str | Path,
        max_cost: float | None = None,
        progress: bool = True,
    ) -> pd.DataFrame:
        """The table of verdicts on `pairs`, asking only for what is not in the file `store`.

        `pairs` holds (prompt, a, b) each; :func:`alignpro.judging.protocol.table_row` describes the
        table. Identical responses are a tie and are not asked about. `max_cost` bounds the cost of
        this call and needs `prices`. `progress` shows a bar.

        Every reply is in `store` before its thread makes the next call, also a reply that is no
        verdict: it was paid for, and at temperature 0 it would come again. To ask again, change the
        judge's `system` or `max_tokens`. Calls that fail are named in the table and are made again
        next time. After a kill, the same call goes on where it was; only the replies to the calls
        under way are lost and may be paid for twice.

        Raises JudgeError where `max_cost` does not cover the estimate or would be exceeded, where
        the endpoint refuses the key, the model or further calls, and where most replies are no
        verdict. Raises StoreError where the store cannot be read or written.
        """
        pairs = _cleaned(pairs)
        if max_cost is not None and self.prices is None:
            raise JudgeError("max_cost needs prices: give Judge the prices of a million tokens")
        requests = self._requests(pairs)
        with VerdictStore(store) as kept:
            stored = {key: kept.get(key) for key in requests}
            outcomes = {key: read_reply(reply) for key, reply in stored.items() if reply}
            missing = {key: r for key, r in requests.items() if key not in outcomes}
            estimate = self._estimate(list(missing.values()))
            if max_cost is not None and estimate.cost > max_cost:
                raise JudgeError(f"{estimate}; max_cost is {max_cost}: nothing was asked")
            if progress:
                unreadable = sum(o.winner is None for o in outcomes.values())
                part = f" ({unreadable} of them no verdict)" if unreadable else ""
                print(f"{len(outcomes)} replies stored{part}, {estimate}")
            outcomes |= _Run(self, kept, max_cost).ask(missing, list(outcomes.values()), progress)
        if "temperature" in self._changes:
            warnings.warn(
                f"{self.model} refuses temperature 0 and judged at its own: another run may give "
                "other verdicts",
                stacklevel=2,
            )
        return self._table(pairs, outcomes)

    def _requests(self, pairs: list[Pair]) -> dict[str, dict]:
        """Both orders of every pair that has to be asked, by key."""
        both = [
            self.request(*texts)
            for p in pairs
            if p.a != p.b
            for texts in ((p.prompt, p.a, p.b), (p.prompt, p.b, p.a))
        ]
        return {_key(request): request for request in both}

    def _estimate(self, requests: list[dict]) -> Estimate:
        read = sum(_size(r) for r in requests) // BYTES_PER_TOKEN
        written = self.max_tokens * len(requests)
        return Estimate(len(requests), read, written, self._cost(read, written))

    def _cost(self, read: int, written: int) -> float | None:
        if self.prices is None:
            return None
        return (read * self.prices[0] + written * self.prices[1]) / 1e6

    def _table(self, pairs: list[Pair], outcomes: dict[str, Outcome]) -> pd.DataFrame:
        rows = []
        for pair in pairs:
            if pair.a == pair.b:
                rows.append(table_row(pair, *[Outcome("tie", "", "")] * 2))
                continue
            orders = (pair.prompt, pair.a, pair.b), (pair.prompt, pair.b, pair.a)
            rows.append(table_row(pair, *(outcomes[_key(self.request(*o))] for o in orders)))
        return pd.DataFrame(rows)


class _Run:
    """The calls of one `compare`: what they have cost so far, and whether to stop."""

    def __init__(self, judge: Judge, store: VerdictStore, max_cost: float | None):
        self.judge, self.store, self.max_cost = judge, store, max_cost
        self.spent = self.reserved = 0.0
        self.under_way = self.failed_in_a_row = self.readable = self.unreadable = 0
        self.reason = ""  # why the run stops, "" while it goes on
        self.changed = threading.Condition()  # its lock is reentrant

    def ask(
        self, requests: dict[str, dict], stored: list[Outcome], progress: bool
    ) -> dict[str, Outcome]:
        """Ask `requests` from several threads; raises JudgeError where the run had to stop.

        `stored` are the outcomes known before: they count when unreadable replies are counted.
        """
        if requests:
            for outcome in stored:
                self._count(outcome)
        outcomes = {}
        pool = ThreadPoolExecutor(self.judge.concurrency)
        try:
            futures = {pool.submit(self._one, k, r): k for k, r in requests.items()}
            done = as_completed(futures)
            for future in tqdm(done, "judge", len(futures), disable=not (progress and futures)):
                outcomes[futures[future]] = future.result()
        except BaseException:
            self._stop("interrupted")
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        if self.reason:
            answered = sum(o.winner is not None for o in outcomes.values())
            raise JudgeError(
                f"{self.reason}. {answered} of {len(requests)} verdicts were given. All replies "
                "are stored: the same call asks only for the rest"
            )
        return outcomes

    def _one(self, key: str, request: dict) -> Outcome:
        judge = self.judge
        # A token has at least one byte, so the call cannot cost more than this.
        bound = judge._cost(_size(request), judge.max_tokens) or 0.0
        if not self._reserve(bound):
            return Outcome(None, "not asked", "")
        try:
            reply = ask_adapting(judge._client, request, judge._changes, OPTIONAL)
        except openai.APIStatusError as error:
            status, reason = f"HTTP {error.status_code}", REFUSALS.get(error.status_code)
            if reason:  # and none of the server's words: a 401 tends to repeat part of the key
                self._stop(f"the endpoint {reason} ({status})")
            words = inert(hide_key(error.message, judge._client)[:300])
            return self._failed(bound, 0.0, f"{status}: {words}")
        except (openai.APIError, ValueError) as error:
            # The call may have been paid for, with only the way back failing.
            return self._failed(bound, bound, type(error).__name__)
        if not any(reply[k] for k in ("content", "refusal", "reasoning", "finish_reason")):
            return self._failed(bound, bound, "the answer is no chat completion")
        try:
            self.store.put(key, changed(request, judge._changes, OPTIONAL), reply)
        except StoreError as error:
            self._stop(str(error))  # at once: the next replies could not be kept either
            raise
        tokens = reply["input_tokens"], reply["output_tokens"]
        self._settle(bound, bound if None in tokens else judge._cost(*tokens) or 0.0)
        outcome = read_reply(reply)
        self._count(outcome)
        return outcome

    def _count(self, outcome: Outcome) -> None:
        """Count a reply, and stop the run where too many are no verdict."""
        with self.changed:
            self.readable += outcome.winner is not None
            self.unreadable += outcome.winner is None
            most = self.judge.max_unreadable
            if most is None or self.unreadable < most or self.unreadable <= self.readable:
                return
            replies = self.readable + self.unreadable
            self._stop(
                f"{self.unreadable} of {replies} replies are no verdict. One of them "
                f"({outcome.problem}) reads: {outcome.words[:300]!r}. Try another `system` prompt, "
                f"a `max_tokens` above {self.judge.max_tokens} or another model; "
                "`max_unreadable=None` goes on all the same"
            )

    def _reserve(self, bound: float) -> bool:
        """Set `bound` aside, waiting for calls under way to be settled; False where to stop."""
        with self.changed:
            while not self.reason:
                if self.max_cost is None or self.spent + self.reserved + bound <= self.max_cost:
                    self.reserved += bound
                    self.under_way += 1
                    return True
                if not self.under_way:
                    self.reason = (
                        f"{self.spent:.4f} are spent and the next call could pass max_cost, "
                        f"{self.max_cost}"
                    )
                else:
                    self.changed.wait()
            return False

    def _settle(self, bound: float, cost: float) -> None:
        """Replace the reserved `bound` of a call by its `cost`."""
        with self.changed:
            self.under_way -= 1
            self.reserved, self.spent = self.reserved - bound, self.spent + cost
            self.failed_in_a_row = 0
            self.changed.notify_all()

    def _failed(self, bound: float, cost: float, why: str) -> Outcome:
        """Settle a call that failed, and stop the run where too many have failed in a row."""
        with self.changed:
            failed = self.failed_in_a_row + 1
            self._settle(bound, cost)
            self.failed_in_a_row = failed
        if failed >= FAILED_IN_A_ROW:
            self._stop(f"{failed} calls in a row failed, the last one with {why}")
        return Outcome(None, f"failed: {why}", "")

    def _stop(self, reason: str) -> None:
        with self.changed:
            self.reason = self.reason or reason
            self.changed.notify_all()


def _key(request: dict) -> str:
    """The key that the reply to `request` is kept under.

    The schema of the reply is not part of it: endpoints may ignore it, and every reply is checked.
    """
    return request_key({k: v for k, v in request.items() if k != "response_format"})


def _cleaned(pairs: Iterable[Sequence[str]]) -> list[Pair]:
    pairs = [Pair(*pair) for pair in pairs]
    if not pairs:
        raise ValueError("there are no pairs to judge")
    for number, pair in enumerate(pairs):
        if not all(isinstance(text, str) for text in pair):
            raise ValueError(f"pair {number}: prompt and responses must be texts, got {pair!r}")
    return [Pair(*map(clean, pair)) for pair in pairs]


def _size(request: dict) -> int:
    """Bytes of a request as it is sent."""
    return len(json.dumps(request, ensure_ascii=False).encode())
