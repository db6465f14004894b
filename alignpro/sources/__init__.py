"""Where things come from: presets, the Hub's prompts, weights, remote models, and results."""
