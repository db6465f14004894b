"""A frozen LLM over HTTP: a scripted server on the real wire, then `transformers serve` itself."""

import dataclasses
import itertools
import json
import logging
import shutil
import signal
import threading
import time
import traceback
import zlib
from contextlib import ExitStack

import pandas as pd
import pytest
import torch
from judge_server import JudgeServer, completion, newer, raw, reset, say, status

from alignpro import models
from alignpro.config import PRESETS, ConfigError, ModelSpec, SamplingConfig, described, load_preset
from alignpro.experiments import Cell, reproduce
from alignpro.generation import Policy
from alignpro.judging.smollm2_judge import local_server
from alignpro.sources import weights
from alignpro.sources.endpoint import Endpoint, EndpointError

KEY = "sk-a-secret-key-that-nobody-may-see"
PAPER = SamplingConfig(temperature=1.5, top_p=0.6, top_k=20, max_new_tokens=12)
PROMPTS = ["How do I boil an egg?", "Why?", "How do I boil an egg?"]


def model(*ignored):
    """Script: a text for each (messages, seed), one for all seeds where no other token may come.

    It ignores the parameters `ignored` in silence, as servers do.
    """
    unseeded = itertools.count()

    def answer(body):
        heeded = {k: v for k, v in body.items() if k not in ignored}
        greedy = heeded.get("temperature", 0) == 0 or heeded.get("top_k") == 1
        greedy = greedy or heeded.get("top_p", 1) < 0.01
        noise = None if greedy else heeded.get("seed", f"unseeded {next(unseeded)}")
        number = zlib.crc32(json.dumps([body["messages"], noise]).encode())
        return f"First {number % 7} e's, then {'e' * (number % 11)} and {number}."

    return say(answer, usage=(9, 99) if "max_tokens" in ignored else (9, 5))


def over(server, sampling=PAPER, concurrency=4):
    return Endpoint(ModelSpec("m", endpoint=server.url), sampling, concurrency)


def test_a_request_carries_the_sampling_of_the_preset(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with JudgeServer(then=model()) as server:
        first = over(server).generate(PROMPTS, seed=3)
        assert over(server, concurrency=1).generate(PROMPTS, seed=3) == first
        assert over(server).generate(PROMPTS[::-1], seed=3)[0] == first[0]
        assert over(server).generate(PROMPTS, seed=4) != first
        over(server, dataclasses.replace(PAPER, top_k=0)).generate(PROMPTS[:1], seed=3)
    assert first[0] != first[2], "the same prompt again is another draw"
    assert server.keys == {f"Bearer {KEY}"}
    *_, last = server.requests
    assert 0 <= last["seed"] < 2**31
    assert last == {
        "model": "m",
        "messages": [{"role": "user", "content": PROMPTS[0]}],
        "temperature": 1.5,
        "top_p": 0.6,
        "max_tokens": 12,
        "seed": last["seed"],
    }
    assert server.requests[0]["top_k"] == 20
    same = [body for body in server.requests if body["seed"] == last["seed"]]
    assert len(same) == 4, "in every call with this seed, the first time that this prompt comes"


def test_as_many_requests_are_under_way_as_allowed_and_answers_keep_their_order():
    lock, now, most = threading.Lock(), 0, 0

    def slow(handler, body):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05 if "9" in body["messages"][0]["content"] else 0.2)
        with lock:
            now -= 1
        say(body["messages"][0]["content"])(handler, body)

    with JudgeServer(then=slow) as server:
        prompts = [f"prompt {i}" for i in range(12)]
        assert over(server, concurrency=3).generate(prompts, seed=0) == prompts
    assert most == 3


def test_a_response_says_whether_it_ended_and_usage_is_counted():
    replies = [
        say(" Whole. ", usage=(7, 3)),
        say("Cut", usage=(8, 12), finish_reason="length"),
        say("Uncounted", usage=None),
        say(None, usage=(9, 1), refusal="I cannot."),
        say(None, usage=(9, 0), finish_reason="content_filter"),
    ]
    with JudgeServer(*replies) as server:
        endpoint = over(server, concurrency=1)
        responses = endpoint.generate([str(i) for i in range(5)], seed=0)
    assert responses == ["Whole.", "Cut", "Uncounted", "I cannot.", ""]
    assert [y.ended for y in responses] == [True, False, True, True, True]
    assert [y.tokens for y in responses] == [3, 12, 0, 1, 0]
    assert [y.filtered for y in responses] == [False] * 4 + [True]
    usage = "5 calls, 33 tokens in, 16 out (1 calls did not say), 1 filtered"
    assert str(endpoint.usage) == usage


@pytest.mark.parametrize(
    ("fault", "wait"),
    [
        (status(500), 0),
        (reset, 0),
        (status(429, {"Retry-After": "1.2"}), 1.2),
        (
            status(200, {"Retry-After": "1.2"}, {"error": {"code": 429, "message": "slow down"}}),
            1.2,
        ),
        (status(200, body={"error": {"code": "rate_limit_exceeded"}}), 0),
        (say("Half a te", finish_reason="error"), 0),
    ],
    ids=["500", "reset", "429", "200 with 429", "200 with a rate limit", "finish_reason error"],
)
def test_a_passing_fault_is_survived_by_asking_again(fault, wait):
    with JudgeServer(fault, then=model()) as server:
        assert len(over(server, concurrency=1).generate(PROMPTS[:1], seed=0)) == 1
    assert len(server.requests) == 2
    assert server.times[1] - server.times[0] >= wait


NO_REASON = completion("text")
del NO_REASON["choices"][0]["finish_reason"]


@pytest.mark.parametrize(
    ("fault", "said", "asked"),
    [
        (status(500), "HTTP 500: .*no", 2),
        (status(429), "HTTP 429", 2),
        (status(401), "set OPENAI_API_KEY", 1),
        (status(404), "source and endpoint", 1),
        (status(400, body={"error": {"message": "odd"}}), "HTTP 400: .*odd.*`top_k: 0`", 1),
        (status(400, body=b"\x1b[31mred"), r"HTTP 400: \\u001b\[31mred", 1),
        (raw(b"<html>hello</html>", "text/html"), "no text", 1),
        (raw(b'{"choices": [{'), "no readable answer .JSONDecodeError", 1),
        (raw(b'{"choices": []}'), "no text", 1),
        (raw(b'{"choices": null, "usage": 3}'), "no text", 1),
        (raw(json.dumps(NO_REASON).encode()), "no finish_reason", 1),
        (say(None), "no text", 1),
        (say(None, reasoning="Let me think"), "`reasoning` alone.*thinking off", 1),
        (say(" ", reasoning_content="Let me think"), "`reasoning` alone.*thinking off", 1),
        (status(200, body={"error": {"code": 400, "message": "odd"}}), "HTTP 400: .*odd", 1),
        (status(200, body={"error": "the disk burns"}), "HTTP 502: .*the disk burns", 2),
        (say("Half a te", finish_reason="error"), "HTTP 502", 2),
    ],
)
def test_a_lasting_fault_stops_the_run_and_says_why(monkeypatch, fault, said, asked):
    monkeypatch.setattr("alignpro.sources.endpoint.RETRIES", 1)
    with JudgeServer(then=fault) as server:
        with pytest.raises(EndpointError, match=f"(?s){said}.*What is done is kept"):
            over(server, concurrency=1).generate(PROMPTS * 10, seed=0)
    seeds = [body["seed"] for body in server.requests]
    assert seeds.count(seeds[0]) == asked
    assert len(set(seeds)) == 1, "no other row is asked"


AZURE = {"code": "content_filter", "message": "The response was filtered.", "param": "prompt"}
INNER = {"code": "400", "message": "no", "innererror": {"code": "ResponsibleAIPolicyViolation"}}
FLAGGED = {"code": 403, "message": "moderation", "metadata": {"flagged_input": "Why?"}}


@pytest.mark.parametrize(
    "refusal", [(400, AZURE), (400, INNER), (403, FLAGGED)], ids=["code", "inner code", "metadata"]
)
def test_a_prompt_that_a_content_filter_refuses_is_an_outcome_of_its_row(refusal):
    """It is asked once, has an empty answer, and takes no other row down."""
    code, error = refusal

    def filters(handler, body):
        bad = body["messages"][0]["content"] == "Why?"
        (status(code, body={"error": error}) if bad else model())(handler, body)

    with JudgeServer(then=filters) as server:
        endpoint = over(server, concurrency=1)
        first, refused, last = endpoint.generate(PROMPTS, seed=0)
    assert len(server.requests) == 3 and "max_tokens" in server.requests[-1]
    assert refused == "" and refused.filtered and refused.ended
    assert first and last and not first.filtered and not last.filtered
    assert str(endpoint.usage) == "3 calls, 18 tokens in, 10 out, 1 filtered"


def test_a_filtered_row_is_counted_and_has_the_reward_of_an_empty_answer(quick, tmp_path):
    """Through training and evaluation to the card and the table, with the rubric as the reward."""
    data = dataclasses.replace(quick.data, train=10, validation=2, test=2)
    ppo = dataclasses.replace(quick.ppo, steps=1)

    def filters(handler, body):
        bad = body["messages"][0]["content"].startswith(refused)
        (status(400, body={"error": AZURE}) if bad else model())(handler, body)

    with JudgeServer(then=filters) as server:
        preset = dataclasses.replace(remote(quick, server.url), data=data, ppo=ppo)
        cell = Cell(preset, "help", 0, root=tmp_path)
        refused = str(cell.prompts("test")[0])
        table = cell.evaluate(progress=False)
    of_it = table["prompt"] == refused
    assert (table["filtered"] == of_it).all() and of_it.any() and not of_it.all()
    assert (table["response"][of_it] == "").all() and (table["reward"][of_it] == 0).all()
    assert f"{of_it.sum()} filtered" in cell.usage


def test_an_answer_is_kept_as_it_comes_and_never_asked_for_again(tmp_path, monkeypatch):
    """The server fails at the 9th of 12 calls; another one is asked for what is missing."""
    monkeypatch.setattr("alignpro.sources.endpoint.RETRIES", 0)
    prompts = [f"prompt {i}" for i in range(12)]

    def kept(server):
        return Endpoint(ModelSpec("m", endpoint=server.url), PAPER, 1, tmp_path / "answers.jsonl")

    with JudgeServer(then=model()) as server:
        whole = over(server).generate(prompts, seed=0)
    with JudgeServer(*[model()] * 8, then=status(503)) as server:
        with pytest.raises(EndpointError, match="HTTP 503"):
            kept(server).generate(prompts, seed=0)
    rows = (tmp_path / "answers.jsonl").read_bytes()
    (tmp_path / "answers.jsonl").write_bytes(rows[:-9])  # a kill in the middle of a line
    with JudgeServer(then=model()) as server:
        again = kept(server).generate(prompts, seed=0)
        assert again == whole and [y.tokens for y in again] == [y.tokens for y in whole]
        assert len(server.requests) == 12 - 7
        assert kept(server).generate(prompts, seed=0) == whole
        assert len(server.requests) == 12 - 7, "all are kept by now"
        assert kept(server).generate(prompts[:1], seed=1) != whole[:1], "another seed, another draw"
        assert len(server.requests) == 12 - 7 + 1


def test_ctrl_c_sends_no_further_request():
    """Not one of those that wait is sent once the user has stopped."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # also in the background

    def stopped(handler, body):
        if len(server.requests) == 3:
            signal.raise_signal(signal.SIGINT)
        time.sleep(0.05)
        model()(handler, body)

    with JudgeServer(then=stopped) as server:
        with pytest.raises(KeyboardInterrupt):
            over(server, concurrency=2).generate([str(i) for i in range(40)], seed=0)
    signal.signal(signal.SIGINT, before)
    assert len(server.requests) < 10


def test_nobody_at_the_address(monkeypatch):
    monkeypatch.setattr("alignpro.sources.endpoint.RETRIES", 0)
    with JudgeServer() as server:
        endpoint = over(server)
    with pytest.raises(EndpointError, match="m at 127.0.0.1 gave no readable .*check that the ser"):
        endpoint.probe()


def test_the_key_reaches_nothing_that_stays(monkeypatch, caplog, capsys):
    """A server that repeats the key everywhere, and logging at its loudest."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("alignpro.sources.endpoint.RETRIES", 0)
    leak = {"error": {"message": f"Incorrect API key provided: {KEY}", "code": KEY}}
    seen = []
    for code in (500, 401):
        with JudgeServer(say(f"Your key is {KEY}."), then=status(code, body=leak)) as server:
            endpoint = over(server, concurrency=1)
            seen += [repr(endpoint), str(vars(endpoint))]
            seen += endpoint.generate(["a"], seed=0)
            with pytest.raises(EndpointError) as stopped:
                endpoint.generate(["b"], seed=0)
            seen += traceback.format_exception(stopped.value)
        assert server.keys == {f"Bearer {KEY}"}
    shown = capsys.readouterr()
    assert not any(KEY in text for text in [*seen, caplog.text, shown.out, shown.err])
    assert "Your key is [key]." in seen


def test_a_password_in_the_address_reaches_nothing_that_stays(monkeypatch):
    monkeypatch.setattr("alignpro.sources.endpoint.RETRIES", 0)
    leak = status(500, body={"error": {"message": "http://me:open%20sesame@host, open sesame"}})
    with JudgeServer(say("Hello open sesame."), then=leak) as server:
        url = server.url.replace("http://", "http://me:open%20sesame@")
        endpoint = Endpoint(ModelSpec("m", endpoint=url), PAPER, 1)
        assert endpoint.generate(["a"], seed=0) == ["Hello [key]."]
        with pytest.raises(EndpointError, match=r"me:\[key\]@host, \[key\]"):
            endpoint.generate(["b"], seed=0)


def test_a_key_that_ends_in_a_newline_is_used_without_it(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n")
    with JudgeServer(then=say("Yes.")) as server:
        assert over(server).generate(["a"], seed=0) == ["Yes."]
    assert server.keys == {f"Bearer {KEY}"}


def test_a_server_that_honours_all_passes_the_probe():
    with JudgeServer(then=model()) as server:
        endpoint = over(server)
        honoured = "m at 127.0.0.1 honours max_tokens, temperature, top_k, top_p and seeds"
        assert endpoint.probe() == honoured and endpoint.seeded
        plain = SamplingConfig(1.0, 1.0, 0, 12)
        assert "honours max_tokens, temperature and seeds" in over(server, plain).probe()
        greedy = over(server, dataclasses.replace(plain, temperature=0.0))
        assert "honours max_tokens, temperature and seeds" in greedy.probe()
    assert all(body["max_tokens"] <= 16 for body in server.requests)
    assert endpoint.usage.calls == 16


@pytest.mark.parametrize(
    ("ignored", "said"),
    [
        ("top_k", r"ignores top_k: .* 4 answers .* 4 versions.* set `top_k: 0`"),
        ("top_p", r"ignores top_p: .* set `top_p: 1`"),
        ("temperature", "ignores temperature: .* are alike"),
        ("max_tokens", "ignores max_tokens"),
    ],
)
def test_what_a_server_ignores_in_silence_is_found(ignored, said):
    with JudgeServer(then=model(ignored)) as server:
        with pytest.raises(EndpointError, match=said):
            over(server).probe()
        without = {"top_k": 0, "top_p": 1.0}
        if ignored in without:  # a preset that does without it may use the server
            fitting = dataclasses.replace(PAPER, **{ignored: without[ignored]})
            assert over(server, fitting).probe()


def test_a_server_without_greedy_decoding_is_found():
    with JudgeServer(then=say(lambda body: str(body["seed"]))) as server:
        with pytest.raises(EndpointError, match="ignores temperature: with temperature 0.0"):
            over(server, SamplingConfig(0.0, 1.0, 0, 12)).probe()


def test_a_server_without_seeds_is_used_and_said_to_be_so():
    with JudgeServer(then=model("seed")) as server:
        endpoint = over(server)
        assert "but not seeds" in endpoint.probe() and not endpoint.seeded


def test_a_server_that_refuses_top_k_says_what_to_set():
    def strict(handler, body):
        known = "top_k" not in body
        (model() if known else status(422, body={"detail": "Unexpected: top_k"}))(handler, body)

    with JudgeServer(then=strict) as server:
        with pytest.raises(EndpointError, match="Unexpected: top_k.*set `top_k: 0` in the preset"):
            over(server).probe()
        assert over(server, dataclasses.replace(PAPER, top_k=0)).probe()


def test_a_newer_model_gets_the_fields_that_it_takes():
    plain = SamplingConfig(1.0, 1.0, 0, 12)
    with JudgeServer(then=newer(model(), "top_p", "seed")) as server:
        endpoint = over(server, plain, concurrency=1)
        assert "max_tokens goes as max_completion_tokens, top_p is left out" in endpoint.probe()
        before = len(server.requests)
        endpoint.generate(PROMPTS[:1], seed=0)
    *_, last = server.requests
    assert len(server.requests) == before + 1 and last["max_completion_tokens"] == 12
    assert not {"max_tokens", "top_p", "seed"} & set(last)


@pytest.mark.parametrize("name", ["temperature", "top_p"])
def test_the_line_to_change_is_named_where_a_newer_model_refuses_a_value(name):
    sampling = dataclasses.replace(SamplingConfig(1.0, 1.0, 0, 12), **{name: 0.7})
    with JudgeServer(then=newer(model())) as server:
        with pytest.raises(EndpointError, match=rf"does not support .*set `{name}: 1` in the pre"):
            over(server, sampling, concurrency=1).probe()


# In a preset, and in a cell


def preset_with(tmp_path, old, new):
    path = tmp_path / "remote.yaml"
    text = (PRESETS / "smoke.yaml").read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


FROZEN, PROMPTER = 'F1: {source: "tiny:llama"}', 'P1: {source: "tiny:qwen2"}'


def test_an_endpoint_is_one_line_of_the_preset_and_its_address_no_part_of_a_run(tmp_path):
    line = "F1: {source: big, endpoint: http://user:secret@gpu:8000/v1}"
    preset = load_preset(preset_with(tmp_path, FROZEN, line))
    assert preset.models["F1"] == ModelSpec("big", endpoint="http://user:secret@gpu:8000/v1")
    moved = load_preset(preset_with(tmp_path, FROZEN, line.replace("gpu:8000", "other:1")))
    assert described(preset) == described(moved)
    assert described(preset)["models"]["F1"] == {"source": "big", "int8": False, "endpoint": "http"}
    assert "endpoint" not in described(load_preset("smoke"))["models"]["F1"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (PROMPTER, "P1: {source: m, endpoint: http://h/v1}", "models.P1.endpoint: P1 is a prompt"),
        (
            FROZEN,
            "F1: {source: m, endpoint: h:80/v1}",
            "models.F1.endpoint: .* match pattern '.https",
        ),
        (FROZEN, "F1: {source: m, endpoint: http://h/v1, int8: true}", "models.F1: int8 and"),
    ],
)
def test_an_endpoint_where_none_can_be_is_refused_with_file_and_field(tmp_path, old, new, said):
    path = preset_with(tmp_path, old, new)
    with pytest.raises(ConfigError, match=said) as caught:
        load_preset(path)
    assert str(caught.value).startswith(str(path))


def remote(preset, url, name="m"):
    frozen = ModelSpec(name, endpoint=url)
    return dataclasses.replace(preset, models={**preset.models, "F1": frozen}, seeds=(0,))


def test_a_cell_is_reproduced_over_http_without_an_oracle(quick, tmp_path, capsys):
    data = dataclasses.replace(quick.data, validation=2, test=2)
    with JudgeServer(then=model()) as server:
        preset = dataclasses.replace(remote(quick, server.url), data=data)
        assert reproduce(preset, tmp_path / "runs", tmp_path / "results") == []
        with pytest.raises(ConfigError, match="models.F1.endpoint: RLHF trains .* weights"):
            Cell(preset, "help", 0, root=tmp_path / "runs").evaluate_oracle(progress=False)
    printed = capsys.readouterr().out
    assert "honours max_tokens, temperature, top_k, top_p and seeds" in printed
    assert f"{len(server.requests)} calls" in printed
    kept = tmp_path / "results" / "smoke" / "help"
    assert [path.name for path in kept.iterdir()] == ["P1F1"], "an endpoint has no oracle"
    folder = kept / "P1F1" / "seed0"
    table = pd.read_parquet(folder / "evaluation.parquet")
    assert set(table["tokens"]) == {5} and table["ended"].all()
    card = json.loads((folder / "card.json").read_text())
    batches = quick.ppo.steps * quick.ppo.batch_size
    assert card["endpoint"]["seeded"] and card["endpoint"]["session_usage"]["calls"] == 16 + batches


class Letters:
    """A reward: the share of letters e; `then` is called once, at the second batch of training.

    The first call of all tries the reward.
    """

    name = "letters"

    def __init__(self, then=lambda: None):
        self.asked, self.then = 0, then

    def __call__(self, prompts, responses):
        self.asked += 1
        if self.asked == 3:
            self.then()
        return torch.tensor([y.count("e") / max(len(y), 1) for y in responses])


def trained(preset, root, reward):
    """Metrics without times, and the adapter, of a cell's training."""
    cell = Cell(preset, "help", 0, reward=reward, root=root)
    cell.train(progress=False)
    rows = [
        {k: v for k, v in row.items() if not k.startswith("time/")}
        for row in cell.run.read("metrics.jsonl")
    ]
    return rows, (cell.run.folder / "prompter" / "adapter_model.safetensors").read_bytes()


def test_training_stopped_by_the_server_goes_on_to_the_same_result(quick, tmp_path, monkeypatch):
    monkeypatch.setattr("alignpro.sources.endpoint.RETRIES", 0)
    with JudgeServer(then=model()) as server:
        whole = trained(remote(quick, server.url), tmp_path / "whole", Letters())

        def fail():
            server.then = status(503)

        with pytest.raises(EndpointError, match="HTTP 503"):
            trained(remote(quick, server.url), tmp_path / "stopped", Letters(fail))
    with JudgeServer(then=model()) as server:  # at another address
        again = trained(remote(quick, server.url), tmp_path / "stopped", Letters())
    assert len(server.requests) == 16 + quick.ppo.batch_size, "the probe and the last of 3 steps"
    assert again == whole


# A real server


@pytest.fixture
def sampled_llama(tmp_path):
    """A tiny checkpoint whose generation_config.json says to sample, truncating nothing."""
    folder = tmp_path / "tiny-llama"
    shutil.copytree(weights.tiny_folder("llama"), folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_sample": True, "top_k": 0}))
    return folder


@pytest.mark.slow
def test_transformers_serve_is_probed_and_answers_as_the_model_in_process(sampled_llama, greedy):
    with local_server(sampled_llama) as (url, name):
        spec = ModelSpec(name, endpoint=url)
        without = dataclasses.replace(PAPER, top_k=0)
        with pytest.raises(EndpointError, match="422.*top_k.*set `top_k: 0`"):
            Endpoint(spec, PAPER, 1).probe()
        one = Endpoint(spec, without, 1)
        assert one.probe().endswith("honours max_tokens, temperature, top_p and seeds")
        assert one.generate(PROMPTS, seed=1) == one.generate(PROMPTS, seed=1)
        # It seeds one generator for all requests: with several at once, theirs get mixed.
        assert "but not seeds with 4 requests at once" in Endpoint(spec, without, 4).probe()
        remote_answers = Endpoint(spec, greedy, 2).generate(PROMPTS, seed=0)
    network, tokenizer = models.load(ModelSpec(str(sampled_llama)))
    here = Policy(network.float(), tokenizer, greedy).generate(PROMPTS, seed=0)
    assert remote_answers == here
    assert [y.tokens for y in remote_answers] == [y.tokens for y in here]


@pytest.mark.slow
def test_a_prompter_is_trained_over_http_alone_and_survives_the_server(
    quick, tmp_path, sampled_llama, monkeypatch
):
    """Two steps; the server is killed between them, starts elsewhere, and the run goes on."""
    monkeypatch.setattr("alignpro.sources.endpoint.RETRIES", 0)
    ppo = dataclasses.replace(quick.ppo, steps=2, batch_size=4)
    frozen = dataclasses.replace(quick.frozen, top_k=0)
    small = dataclasses.replace(quick, ppo=ppo, frozen=frozen, generation_batch=1)
    with ExitStack() as first:
        url, name = first.enter_context(local_server(sampled_llama))
        whole = trained(remote(small, url, name), tmp_path / "whole", Letters())
        stopped = Letters()
        stopped.asked, stopped.then = 1, first.close  # at the first batch of training
        with pytest.raises(EndpointError, match="APIConnectionError"):
            trained(remote(small, url, name), tmp_path / "stopped", stopped)
    with local_server(sampled_llama) as (url, name):
        again = trained(remote(small, url, name), tmp_path / "stopped", Letters())
    assert again == whole
    assert len(whole[0]) == 2 and whole[0][0]["objective/scores"] > 0
