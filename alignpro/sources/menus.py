"""The menus of suffixes that a warm start teaches and that baselines use."""

from __future__ import annotations

# The warm start teaches the prompter to write one of these short instructions, whatever the prompt.
# PPO has to find which prompt each of them helps; the sentences below, written for kinds of
# question, are not among them. Their rewards differ, because the spread of the reward under ρ_sft
# is all that prompting can use (C5), and no two begin alike. Chosen on training prompts.
NEUTRAL_MENU = (
    "Keep it short.",
    "Use simple words.",
    "Give an example.",
    "Answer briefly.",
    "Give me the steps.",
    "Give me a short list.",
    "Make a list.",
    "Name three things.",
    "Give three tips.",
    "Put it in one line.",
    "Say it in a few words.",
    "Recommend one.",
)

# Written by hand for the kinds of question. They are baselines, and part of the menu "all".
BEST_SUFFIXES = (
    "List three numbered steps.",
    "List three reasons.",
    "Use bullet points.",
    "In one sentence.",
    "Which one is better and why?",
    "Answer yes or no.",
)
