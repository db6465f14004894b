"""Time ways to decode on a GPU, so that a faster one can be chosen by measurement.

python bench/decoding.py --preset cpu            on the frozen LLM of a preset
python bench/decoding.py --preset h100 --random  on random weights of its full size

Every way answers the same prompts with full-length answers, at the preset's temperature and
truncation. The first call, which may compile, is timed apart. A way that fails is reported with its
error and does not stop the others. Nothing here changes what the project uses.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
warnings.filterwarnings("ignore")

import torch  # noqa: E402
from transformers import GenerationConfig  # noqa: E402

from alignpro import models  # noqa: E402
from alignpro.config import load_preset  # noqa: E402
from alignpro.fast.cache import left_pad  # noqa: E402
from alignpro.generation import Policy  # noqa: E402
from alignpro.runs import provenance, write_json  # noqa: E402
from alignpro.scale.random_models import random_texts, with_random_models  # noqa: E402

NEVER = 10**9  # no token's id: answers have their full length


def ways(policy: Policy, encoded: list[list[int]]) -> dict[str, Callable[[int], int]]:
    """By name, a function of a seed that decodes `encoded` and returns the number of new tokens."""
    model, sampling = policy.model, policy.sampling
    ids, mask = left_pad(encoded, policy.tokenizer.pad_token_id, model.device)
    settings = dict(
        do_sample=True,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=NEVER,
        pad_token_id=policy.tokenizer.pad_token_id,
    )

    def generate(**options) -> Callable[[int], int]:
        def run(seed: int) -> int:
            torch.manual_seed(seed)
            out = model.generate(input_ids=ids, attention_mask=mask, **settings, **options)
            return out[:, ids.shape[1] :].numel()

        return torch.inference_mode()(run)

    def batched(seed: int) -> int:
        torch.manual_seed(seed)
        found = model.generate_batch(encoded, generation_config=GenerationConfig(**settings))
        return sum(len(request.generated_tokens) for request in found.values())

    return {
        "alignpro": lambda seed: sum(y.tokens for y in policy.generate_ids(encoded, seed)),
        "transformers, dynamic cache": generate(),
        "transformers, static cache, compiled": generate(cache_implementation="static"),
        "transformers, continuous batching": batched,
    }


def seconds_of(run: Callable[[int], int], seed: int) -> tuple[float, int]:
    """The seconds that `run` takes, and what it returns."""
    started = time.perf_counter()
    tokens = run(seed)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, tokens


def main() -> None:
    """Time each way and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--random", action="store_true", help="random weights: no download")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "decoding")
    arguments = parser.parse_args()
    preset = load_preset(arguments.preset)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.random:
            preset = with_random_models(preset, 1, Path(folder))
        model, tokenizer = models.load(preset.models[preset.architectures[0][1]])
        policy = Policy(model, tokenizer, preset.frozen, arguments.rows)
        policy.eos_ids = torch.tensor([NEVER])
        texts = random_texts(arguments.rows, arguments.prompt_tokens, seed=0)
        encoded = policy.encode([[{"role": "user", "content": x}] for x in texts])
        rows = []
        for name, run in ways(policy, encoded).items():
            try:
                first, _ = seconds_of(run, 0)
                spent = [seconds_of(run, 1 + i) for i in range(arguments.rounds)]
            except Exception as error:  # another library's way may not run on this machine
                rows.append({"way": name, "error": f"{type(error).__name__}: {error}"[:300]})
                print(f"  {name:40} {rows[-1]['error']}", flush=True)
                continue
            best, tokens = min(spent)
            rate = tokens / best
            rows.append({"way": name, "first": first, "seconds": best, "tokens": tokens})
            print(f"  {name:40} {rate:8.0f} tokens/s, first call {first:.1f} s", flush=True)
    path = arguments.results / f"{preset.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    lengths = {"rows": arguments.rows, "prompt_tokens": max(map(len, encoded))}
    write_json(path, {**provenance(), "preset": preset.name, **lengths, "ways": rows})
    print(json.dumps(lengths), "in", path)


if __name__ == "__main__":
    main()
