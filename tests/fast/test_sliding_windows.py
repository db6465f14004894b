"""Models with sliding windows: padding beside longer rows takes no token out of a row's window."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from alignpro.config import SamplingConfig
from alignpro.fast.adapter import add_lora
from alignpro.fast.logprobs import forward, make_batch, with_trunk
from alignpro.generation import Policy
from alignpro.sources.chat import Chat
from alignpro.theory.next_token import next_token_logits

WINDOW = 24
SAMPLING = SamplingConfig(temperature=0.0, top_p=1.0, top_k=0, max_new_tokens=24)
# Far apart in length, and all longer than the window; they begin alike, as chats do.
QUERIES = ["Name a fruit, " + "please, " * n + "and tell me why." for n in (1, 4, 30)]


@pytest.fixture(params=["gemma3_text", "mistral"])
def sliding(request, load_tiny):
    """A random model whose layers look back 24 tokens (in Gemma 3, every other one does)."""
    _, tokenizer = load_tiny("llama")
    sizes = dict(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=1024,
        initializer_range=0.4,
        sliding_window=WINDOW,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    if request.param == "gemma3_text":
        sizes["layer_types"] = ["sliding_attention", "full_attention"]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(request.param, **sizes)).eval()
    return model.requires_grad_(False), tokenizer


def encoded(policy):
    rows = policy.encode([[{"role": "user", "content": q}] for q in QUERIES])
    assert min(map(len, rows)) > WINDOW and len({*map(len, rows)}) == len(rows)
    return rows


def test_the_window_bites(sliding):
    """Without it the model says something else, so that the tests below see it."""
    model, tokenizer = sliding
    ids = torch.tensor([encoded(Policy(model, tokenizer, SAMPLING))[0]])
    own = model(ids).logits[0, -1]
    free = AutoModelForCausalLM.from_config(model.config)
    free.load_state_dict(model.state_dict())
    free.config.sliding_window = 512
    for layer in free.model.layers:
        layer.self_attn.sliding_window = 512
    assert (free.eval()(ids).logits[0, -1] - own).abs().max() > 0.1


def test_a_row_is_answered_as_it_is_alone(sliding):
    model, tokenizer = sliding
    policy = Policy(model, tokenizer, SAMPLING)
    together = policy.generate(QUERIES, seed=0)
    for ids, response in zip(encoded(policy), together, strict=True):
        whole = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=24)
        assert list(response.token_ids) == whole[0, len(ids) :].tolist()


def test_log_probabilities_are_those_of_one_plain_pass_per_row(sliding, smoke):
    """With the trunk computed once, too: the policy before its first update has the ratio 1."""
    model, tokenizer = sliding
    rows = encoded(Policy(model, tokenizer, SAMPLING))
    answers = [tokenizer.encode(a, add_special_tokens=False) for a in ("an apple", "tea", "why so")]
    batch = make_batch(rows, answers, tokenizer.pad_token_id, "cpu")
    plain = []
    for query, answer in zip(rows, answers):
        logp = model(torch.tensor([query + answer])).logits[0].log_softmax(-1)
        picked = logp[len(query) - 1 : -1].gather(-1, torch.tensor(answer)[:, None])[:, 0]
        plain.append(torch.nn.functional.pad(picked, (0, batch.tokens.shape[1] - len(answer))))
    plain = torch.stack(plain)
    logp, _, _ = forward(model, batch, tokenizer.pad_token_id)
    torch.testing.assert_close(logp, plain, atol=2e-5, rtol=1e-4)
    adapted = add_lora(model, smoke.prompter, seed=0)
    trunk = with_trunk(adapted, batch, tokenizer.pad_token_id)
    logp, _, _ = forward(adapted, trunk, tokenizer.pad_token_id)
    torch.testing.assert_close(logp.detach(), plain, atol=2e-5, rtol=1e-4)
    pair = trunk.rows(torch.tensor([2, 0]))
    logp, _, _ = forward(adapted, pair, tokenizer.pad_token_id)
    torch.testing.assert_close(logp.detach(), plain[[2, 0], : logp.shape[1]], atol=2e-5, rtol=1e-4)


@torch.inference_mode()
def test_the_next_token_of_a_rewrite_is_that_of_the_rewrite_alone(sliding):
    """The rewrites begin alike and differ in length: padding must not come after what they share.

    Logits and likelihoods are compared with one plain pass for each rewrite.
    """
    model, tokenizer = sliding
    prompt = "Name a fruit that is yellow, please, and say why it is so."
    suffixes = ["", "Be brief.", "Answer with a list, one item per line, and number the items."]
    logits, likelihoods = next_token_logits(model, tokenizer, [prompt], suffixes)
    texts = [f"{prompt} {suffix}".strip() for suffix in suffixes]
    rows = [Chat(tokenizer).encode([{"role": "user", "content": text}]) for text in texts]
    start = next(i for i in range(999) if len({tuple(row[: i + 1]) for row in rows}) > 1)
    assert min(map(len, rows)) > WINDOW and len({*map(len, rows)}) == 3
    for row, found, likelihood in zip(rows, logits[0], likelihoods[0]):
        out = model(torch.tensor([row])).logits[0]
        torch.testing.assert_close(torch.from_numpy(found), out[-1], atol=1e-4, rtol=1e-4)
        p = out.double().log_softmax(-1)
        own = [p[i - 1, row[i]].item() for i in range(start, len(row))]
        assert likelihood == pytest.approx(sum(own) / len(own), abs=1e-5)
