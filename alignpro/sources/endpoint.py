"""A frozen LLM π_F behind HTTP, on any OpenAI-compatible server."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import openai
from tqdm import tqdm

from alignpro.config import ModelSpec, SamplingConfig
from alignpro.runs import row_seeds
from alignpro.sources.answers import KeptAnswers, answer_key
from alignpro.sources.openai_client import (
    REFUSALS,
    ask_adapting,
    connect,
    hide_key,
    is_filtered,
    refused_field,
)
from alignpro.sources.terminal import inert
from alignpro.texts import Response

TIMEOUT = 600.0  # seconds for one answer, including the server's queue
RETRIES = 6
# An open question. Freely sampled answers to it differ within a few tokens.
PROBE = "Invent a town and describe it."
PROBES = 4
PROBE_TOKENS = 16
TINY_NUCLEUS = 1e-3  # holds only the likeliest token, as top_k 1 does
# The line of a preset that turns a sampling parameter off.
LINES = {"top_k": "`top_k: 0`", "top_p": "`top_p: 1`", "temperature": "`temperature: 1`"}
KEPT = "What is done is kept: the same command goes on from the last checkpoint."


class EndpointError(RuntimeError):
    """Raised when an endpoint cannot serve as the frozen LLM; says why and what to do."""


@dataclass
class Usage:
    """Calls that an endpoint answered, and their tokens as it counts them.

    `uncounted` calls had no usage in their replies; their tokens are missing from the sums.
    `filtered` calls were refused, or cut short, by a content filter.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    uncounted: int = 0
    filtered: int = 0

    def __str__(self) -> str:
        text = f"{self.calls:,} calls, {self.input_tokens:,} tokens in, {self.output_tokens:,} out"
        text += f" ({self.uncounted:,} calls did not say)" if self.uncounted else ""
        return text + (f", {self.filtered:,} filtered" if self.filtered else "")


class Endpoint:
    """A remote model that generates text as a `Policy` does.

    spec: the model's name, `spec.source`, and its address, `spec.endpoint`.
    sampling: how it samples.
    concurrency: how many requests are sent at once.
    kept: a JSONL file that keeps each answer as it comes; by default none is kept.

    An answer in `kept` is not asked for again. Its key is the hash of all that determines it: the
    model's name, the messages, the sampling and the seed, but not the address of the server. What
    can be paid twice is the calls under way when a process dies.

    A prompt that the server's content filter refuses for good has an empty answer with `filtered`
    set. Its reward is what the reward function gives to an empty answer; the rubric gives 0. An
    answer that the filter cut is kept as it is, with `filtered` set.

    The API key is read from OPENAI_API_KEY, which a local server does not need, and stays inside
    the client. `usage` counts the answers so far. `seeded` is whether `probe` found that the server
    honours seeds.
    """

    def __init__(
        self,
        spec: ModelSpec,
        sampling: SamplingConfig,
        concurrency: int | None,
        kept: Path | None = None,
    ):
        self.model, self.sampling, self.concurrency = spec.source, sampling, concurrency or 8
        self.usage, self.seeded = Usage(), False
        self._lock, self._kept = threading.Lock(), KeptAnswers(kept) if kept else None
        self._changes: dict[str, str | None] = {}  # request fields that the server refused
        key = os.environ.get("OPENAI_API_KEY")
        self._client = connect(spec.endpoint, key, TIMEOUT, RETRIES)

    def __repr__(self) -> str:
        return f"{self.model} at {urlsplit(str(self._client.base_url)).hostname}"

    def generate(
        self,
        prompts: Sequence[str | list[dict]],
        seed: int,
        progress: str | None = None,
    ) -> list[Response]:
        """Return one completion per prompt, in order, with the seeds of `Policy.generate`.

        prompts: texts, or lists of chat messages.
        seed: the seed of the whole call.
        progress: the label of a progress bar; by default there is none.

        Raises EndpointError at the first request that still fails after all its retries.
        """
        messages = [[{"role": "user", "content": p}] if isinstance(p, str) else p for p in prompts]
        seeds = row_seeds(seed, map(json.dumps, messages))
        return self._answers(messages, seeds, self.sampling, progress, self._kept)

    def probe(self) -> str:
        """Test with short requests what the endpoint honours, and return it as a sentence.

        Servers silently ignore what they do not know. So one prompt is sent under several seeds.
        Freely sampled answers must differ. Answers from the likeliest token alone must agree: at
        top_k 1, in a tiny nucleus, at temperature 0, of which only those are tried that the
        sampling uses. The same seeds must give the same answers again, or `seeded` is False.
        Raises EndpointError naming a parameter that is refused or ignored, and the remedy.
        """
        wanted = self.sampling
        free = SamplingConfig(max(1.0, wanted.temperature), 1.0, 0, PROBE_TOKENS)
        if 0 < wanted.temperature < 1:  # no other request below has this temperature
            self._probed(dataclasses.replace(wanted, max_new_tokens=PROBE_TOKENS), 1)
        greedy = {}
        if wanted.temperature == 0:
            greedy["temperature"] = 0.0
        if wanted.top_k:
            greedy["top_k"] = 1
        if wanted.top_p < 1:
            greedy["top_p"] = TINY_NUCLEUS
        for name, value in greedy.items():
            # One answer may differ if the two likeliest tokens are almost equal.
            if (found := len({*self._probed(dataclasses.replace(free, **{name: value}))})) > 2:
                raise EndpointError(
                    f"{self} ignores {name}: with {name} {value}, which leaves only the likeliest "
                    f"token, {PROBES} answers to one prompt came in {found} versions. Take a "
                    f"server that honours it, or set {LINES[name]} in the preset's `frozen` section"
                )
        answers = self._probed(free)
        if wanted.temperature > 0 and len({*answers}) <= 2:
            raise EndpointError(
                f"{self} ignores temperature: at {free.temperature}, {PROBES} answers to one "
                "prompt under different seeds are alike. (`transformers serve` samples only where "
                "the model's generation_config.json says `do_sample: true`.)"
            )
        if max(y.tokens for y in answers) > PROBE_TOKENS:
            raise EndpointError(f"{self} ignores max_tokens: it wrote more than {PROBE_TOKENS}")
        self.seeded = self._probed(free) == answers
        honoured = ", ".join(["max_tokens", *dict.fromkeys(["temperature", *greedy])])
        names = [f"{a} goes as {b}" if b else f"{a} is left out" for a, b in self._changes.items()]
        honoured += f" ({', '.join(names)})" if names else ""
        if self.seeded:
            return f"{self} honours {honoured} and seeds"
        return (
            f"{self} honours {honoured}, but not seeds with {self.concurrency} requests at once: "
            "a run that is stopped goes on with other answers than an uninterrupted one"
        )

    def facts(self) -> dict:
        """Return the facts for a run's card: `seeded`, and the usage of this session."""
        return {"seeded": self.seeded, "session_usage": dataclasses.asdict(self.usage)}

    def _probed(self, sampling: SamplingConfig, times: int = PROBES) -> list[Response]:
        messages = [[{"role": "user", "content": PROBE}]] * times
        return self._answers(messages, range(1, times + 1), sampling, None)

    def _answers(
        self,
        messages: Sequence[list[dict]],
        seeds: Sequence[int],
        sampling: SamplingConfig,
        progress: str | None,
        kept: KeptAnswers | None = None,
    ) -> list[Response]:
        failed = threading.Event()

        def answer(row: list[dict], seed: int) -> Response | None:
            if failed.is_set():  # no further request; the failed row raises
                return None
            key = answer_key(self.model, row, seed, sampling)
            found = kept.get(key) if kept else None
            try:
                if found is None:
                    found = self._answer(row, seed, sampling)
                    if kept:
                        kept.put(key, found)
                return found
            except BaseException:
                failed.set()
                raise

        with ThreadPoolExecutor(self.concurrency) as pool:
            rows = pool.map(answer, messages, seeds)
            total, off = len(messages), progress is None
            try:
                return list(tqdm(rows, progress, total, disable=off, leave=False))
            except BaseException:  # Ctrl-C, too, sends no further request
                failed.set()
                raise

    def _answer(self, messages: list[dict], seed: int, sampling: SamplingConfig) -> Response:
        request = {
            "model": self.model,
            "messages": messages,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": seed % 2**31,  # some servers keep 32 bits
        }
        if sampling.top_k:  # not OpenAI's, but vLLM's and others'
            request["extra_body"] = {"top_k": sampling.top_k}
        # At its default of 1 a field can be left out without a change to the sampling.
        optional = {"seed"} | {name for name in ("temperature", "top_p") if request[name] == 1}
        try:
            reply = ask_adapting(self._client, request, self._changes, optional)
        except (openai.APIError, ValueError) as error:
            if is_filtered(error):
                with self._lock:
                    self.usage.calls += 1
                    self.usage.filtered += 1
                return Response("", filtered=True)
            # The error itself is not shown, because it may contain the key.
            raise EndpointError(self._failure(error, request)) from None
        ended, text = reply["finish_reason"], reply["content"]
        text = reply["refusal"] if text is None else text
        if not (text or "").strip() and reply["reasoning"]:
            raise EndpointError(
                f"{self} sent an empty answer, with text in `reasoning` alone: it thinks before it "
                "answers. Turn its thinking off on the server, or raise `max_new_tokens` in the "
                f"preset's `frozen` section. {KEPT}"
            )
        if ended is None or (text is None and ended not in ("length", "content_filter")):
            raise EndpointError(f"{self} answered, but with no text or no finish_reason. {KEPT}")
        self._count(reply)
        return Response(
            (text or "").strip(),
            ended != "length",
            tokens=reply["output_tokens"] or 0,
            filtered=ended == "content_filter",
        )

    def _count(self, reply: dict) -> None:
        read, written = reply["input_tokens"], reply["output_tokens"]
        with self._lock:
            self.usage.calls += 1
            self.usage.input_tokens += read or 0
            self.usage.output_tokens += written or 0
            self.usage.uncounted += None in (read, written)
            self.usage.filtered += reply["finish_reason"] == "content_filter"

    def _failure(self, error: Exception, request: dict) -> str:
        if not isinstance(error, openai.APIStatusError):
            return (
                f"{self} gave no readable answer ({type(error).__name__}) in {RETRIES + 1} tries: "
                f"check that the server runs, and `endpoint` in the preset. {KEPT}"
            )
        code = error.status_code
        if code in REFUSALS:  # without the server's words, which may contain part of the key
            return f"{self} {REFUSALS[code]} (HTTP {code}). {KEPT}"
        said = inert(hide_key(error.response.text, self._client)[:300])
        hint = ""
        if code in (400, 422):
            field = refused_field(error, request)
            if field in LINES:
                hint = f" To do without it, set {LINES[field]} in the preset's `frozen` section."
            elif field is None and "extra_body" in request:
                hint = " If it knows no top_k, set `top_k: 0` in the preset's `frozen` section."
        return f"{self} failed with HTTP {code}: {said}.{hint} {KEPT}"
