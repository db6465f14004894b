"""Where things come from: presets, prompts, weights, remote models, and a result's provenance.

Start with `weights`: SmolLM2, MiniLM and the tiny models for tests. `hub_prompts` reads the paper's
datasets from the Hub, `preset_file` the YAML of a preset, and `reward_model` a learned reward.
`own_reward` tells a user's reward from others, `finished_runs` finds the run of an earlier one, and
`trackers` sends metrics to TensorBoard and others. `reference` is the warm start behind ρ_sft.
`chat` turns chats into token ids, in which text stays text. `endpoint` lets a server take the
frozen LLM's place; `openai_client` is the client that it shares with the judge. `files` writes
whole files or none. `provenance` records versions, commit and hardware beside a result.
"""
