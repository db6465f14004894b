"""Greedy decoding by transformers, prompt by prompt: what a policy's own sampler must reproduce."""

from alignpro.generation import Policy


def check_greedy(model, tokenizer, sampling, prompts):
    """Assert that a policy's greedy tokens for `prompts` are those of `transformers.generate`."""
    ours = Policy(model, tokenizer, sampling).generate(prompts, seed=0)
    for prompt, response in zip(prompts, ours, strict=True):
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        whole = model.generate(**inputs, do_sample=False, max_new_tokens=sampling.max_new_tokens)
        assert list(response.token_ids) == whole[0, inputs["input_ids"].shape[1] :].tolist()
