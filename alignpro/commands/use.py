"""`alignpro rewrite` and `serve`: use a trained prompter."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from alignpro.config import ConfigError
from alignpro.sources.files import require_place
from alignpro.sources.prompt_files import read_texts
from alignpro.sources.terminal import inert


def rewrite(arguments: argparse.Namespace) -> int:
    """Write one JSON object with `prompt` and `rewrite` for each prompt, in order."""
    from alignpro.prompter import Prompter

    if arguments.out:
        require_place(Path(arguments.out))
    prompts = list(arguments.prompt)
    if arguments.file:
        prompts += read_texts(Path(arguments.file), arguments.prompt_column)
    if not prompts:
        raise ConfigError("no prompt: give texts, or --file with a file of prompts")
    rewrites = Prompter.load(arguments.prompter, arguments.base).rewrite(prompts, arguments.seed)
    lines = "".join(
        inert(json.dumps({"prompt": x, "rewrite": z}, ensure_ascii=False)) + "\n"
        for x, z in zip(prompts, rewrites)
    )
    if arguments.out:
        Path(arguments.out).write_text(lines, encoding="utf-8")
    else:
        sys.stdout.write(lines)
    return 0


def serve(arguments: argparse.Namespace) -> int:
    """Serve the aligned model on this machine until it is interrupted."""
    try:
        import fastapi  # noqa: F401
        import uvicorn
    except ImportError as error:
        text = f"`alignpro serve` needs {error.name}: `pip install fastapi uvicorn`"
        raise ConfigError(text) from error
    from alignpro.commands.proxy import make_app
    from alignpro.prompter import Prompter

    app = make_app(Prompter.load(arguments.prompter, arguments.base), arguments.endpoint)
    print(f"serving {arguments.endpoint} at http://127.0.0.1:{arguments.port}/v1", file=sys.stderr)
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")
    return 0
