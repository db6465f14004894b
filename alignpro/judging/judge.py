"""A language model behind an OpenAI-compatible endpoint as a judge of pairs of responses.

Nothing is lost and nothing is paid twice: every reply is stored at once, and costs are bounded.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import openai
import pandas as pd
from tqdm import tqdm

from alignpro.judging.protocol import (
    SCHEMA,
    SYSTEM_PROMPT,
    Outcome,
    Pair,
    Verdict,
    question,
    read_reply,
    table_row,
)
from alignpro.judging.store import VerdictStore, request_key
from alignpro.sources.openai_client import REFUSALS, ask, clean, hide_key

# English text has about four bytes a token; three leaves room for other languages.
BYTES_PER_TOKEN = 3
# So many calls lost in a row, each after all its retries, mean that something is wrong for all.
LOST_IN_A_ROW = 8


class JudgeError(RuntimeError):
    """Judging that cannot start or go on; the message says why and what to do."""


@dataclass(frozen=True)
class Estimate:
    """What is still to be asked: about so many tokens in, at most so many out, and their cost.

    `cost` is in the unit of the prices, None where there are none.
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

    `base_url` and `api_key` default to OPENAI_BASE_URL and OPENAI_API_KEY; a local endpoint needs
    no key. `prices` are for a million tokens in and out. `timeout` is in seconds; `retries` is
    how often the client asks again after a 429, a 5xx or a broken connection, waiting as long as
    Retry-After says (up to two minutes), else half a second, doubled each time up to eight.
    The key stays inside the client: it is in no attribute, message, log or file of this module.
    Raises JudgeError where there is neither a key nor an endpoint.
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
    ):
        base_url = base_url or os.environ.get("OPENAI_BASE_URL")
        api_key = api_key or os.environ.get("OPENAI_API_KEY")
        if not (base_url or api_key):
            raise JudgeError(
                "no key and no endpoint: set OPENAI_API_KEY, or OPENAI_BASE_URL to a local server"
            )
        self.model, self.system, self.max_tokens = model, system, max_tokens
        self.prices, self.concurrency = prices, concurrency
        self._client = openai.OpenAI(
            base_url=base_url, api_key=api_key or "none", timeout=timeout, max_retries=retries
        )
        self._schema_supported = True

    def __repr__(self) -> str:
        return f"Judge({self.model!r} at {urlsplit(str(self._client.base_url)).hostname})"

    def request(self, prompt: str, first: str, second: str) -> dict:
        """The body of the request, which is also what the reply is kept under.

        The key does not say whether the endpoint heeded the schema: the reply is checked anyhow.
        """
        schema = {"name": "verdict", "strict": True, "schema": SCHEMA}
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
        """What `compare` would still have to ask."""
        requests = self._requests(_cleaned(pairs))
        with VerdictStore(store) as kept:
            return self._estimate([r for k, r in requests.items() if not _stored(kept, k)])

    def compare(
        self,
        pairs: Iterable[Sequence[str]],
        store: str | Path,
        max_cost: float | None = None,
        progress: bool = True,
    ) -> pd.DataFrame:
        """The table of verdicts on `pairs`, each (prompt, a, b), asking only what is not stored.

        Every readable reply is in the file `store` before the next call of its thread starts, so
        the same command goes on after a kill. Replies that cannot be read, and calls that fail,
        are named in the table and asked again next time. Identical responses are a tie unasked.
        Raises JudgeError where `max_cost` (for this run, needs `prices`) does not cover the
        estimate or would be passed, and where the endpoint refuses key, model or further calls.
        """
        pairs = _cleaned(pairs)
        if max_cost is not None and self.prices is None:
            raise JudgeError("max_cost needs prices: give Judge the prices of a million tokens")
        requests = self._requests(pairs)
        with VerdictStore(store) as kept:
            outcomes = {k: o for k in requests if (o := _stored(kept, k))}
            missing = {k: r for k, r in requests.items() if k not in outcomes}
            estimate = self._estimate(list(missing.values()))
            if max_cost is not None and estimate.cost > max_cost:
                raise JudgeError(f"{estimate}; max_cost is {max_cost}: nothing was asked")
            if progress:
                print(f"{len(outcomes)} verdicts stored, {estimate}")
            outcomes |= _Run(self, kept, max_cost).ask(missing, progress)
        return self._table(pairs, outcomes)

    def _requests(self, pairs: list[Pair]) -> dict[str, dict]:
        """Both orders of every pair that has to be asked, by key."""
        both = [
            self.request(*texts)
            for p in pairs
            if p.a != p.b
            for texts in ((p.prompt, p.a, p.b), (p.prompt, p.b, p.a))
        ]
        return {request_key(r): r for r in both}

    def _estimate(self, requests: list[dict]) -> Estimate:
        read = sum(_size(r) for r in requests) // BYTES_PER_TOKEN
        written = self.max_tokens * len(requests)
        return Estimate(len(requests), read, written, self._cost(read, written))

    def _cost(self, read: int, written: int) -> float | None:
        if self.prices is None:
            return None
        return (read * self.prices[0] + written * self.prices[1]) / 1e6

    def _reply(self, request: dict) -> dict:
        """One call; raises what the client raises."""
        plain = {k: v for k, v in request.items() if k != "response_format"}
        if not self._schema_supported:
            return ask(self._client, plain)
        try:
            return ask(self._client, request)
        except (openai.BadRequestError, openai.UnprocessableEntityError):
            # Perhaps an endpoint that knows no schemas: the strict parser does without.
            reply = ask(self._client, plain)
            self._schema_supported = False
            return reply

    def _table(self, pairs: list[Pair], outcomes: dict[str, Outcome]) -> pd.DataFrame:
        rows = []
        for pair in pairs:
            if pair.a == pair.b:
                tie = Outcome(Verdict("tie", 0, 0, ""), "", "")
                rows.append(table_row(pair, tie, tie))
                continue
            orders = (pair.prompt, pair.a, pair.b), (pair.prompt, pair.b, pair.a)
            rows.append(table_row(pair, *(outcomes[request_key(self.request(*o))] for o in orders)))
        return pd.DataFrame(rows)


class _Run:
    """The calls of one run: what they cost so far, and whether to stop."""

    def __init__(self, judge: Judge, store: VerdictStore, max_cost: float | None):
        self.judge, self.store, self.max_cost = judge, store, max_cost
        self.spent = self.reserved = 0.0
        self.under_way = self.lost_in_a_row = 0
        self.reason = ""  # why the run stops, "" while it goes on
        self.changed = threading.Condition()  # its lock is reentrant

    def ask(self, requests: dict[str, dict], progress: bool) -> dict[str, Outcome]:
        """Ask `requests` from several threads; raises JudgeError where the run had to stop."""
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
            answered = sum(o.verdict is not None for o in outcomes.values())
            raise JudgeError(
                f"{self.reason}. {answered} of {len(requests)} verdicts were given and are stored: "
                "the same call asks only for the rest"
            )
        return outcomes

    def _one(self, key: str, request: dict) -> Outcome:
        # A token is at least a byte, so this cannot be passed.
        bound = self.judge._cost(_size(request), self.judge.max_tokens) or 0.0
        if not self._reserve(bound):
            return Outcome(None, "not asked", "")
        try:
            reply = self.judge._reply(request)
        except openai.APIStatusError as error:
            status, reason = f"HTTP {error.status_code}", REFUSALS.get(error.status_code)
            if reason:  # and nothing of the server's words: a 401 tends to repeat part of the key
                self._stop(f"the endpoint {reason} ({status})")
            said = hide_key(error.message, self.judge._client)[:300]
            return self._lost(bound, 0.0, f"{status}: {said}")
        except (openai.APIError, ValueError) as error:
            # Perhaps it was paid, and only the way back failed.
            return self._lost(bound, bound, type(error).__name__)
        outcome = _outcome(reply)
        if outcome.verdict:
            self.store.put(key, request, reply)
        tokens = reply["input_tokens"], reply["output_tokens"]
        self._settle(bound, bound if None in tokens else self.judge._cost(*tokens) or 0.0)
        return outcome

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
        with self.changed:
            self.under_way -= 1
            self.reserved, self.spent = self.reserved - bound, self.spent + cost
            self.lost_in_a_row = 0
            self.changed.notify_all()

    def _lost(self, bound: float, cost: float, why: str) -> Outcome:
        with self.changed:
            lost = self.lost_in_a_row + 1
            self._settle(bound, cost)
            self.lost_in_a_row = lost
        if lost >= LOST_IN_A_ROW:
            self._stop(f"{lost} calls in a row failed, the last one with {why}")
        return Outcome(None, f"failed: {why}", "")

    def _stop(self, reason: str) -> None:
        with self.changed:
            self.reason = self.reason or reason
            self.changed.notify_all()


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


def _outcome(reply: dict) -> Outcome:
    try:
        verdict, problem = read_reply(reply), ""
    except ValueError as error:
        verdict, problem = None, f"unparsed: {error}"
    return Outcome(verdict, problem, reply["content"] or reply["refusal"] or "")


def _stored(store: VerdictStore, key: str) -> Outcome | None:
    """What is kept under `key`, None where nothing is that can be read today."""
    reply = store.get(key)
    outcome = reply and _outcome(reply)
    return outcome if outcome and outcome.verdict else None
