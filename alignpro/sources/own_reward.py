"""A reward of your own: what tells it from other rewards, and where the command line finds it.

A run is kept under the name of its reward. The name of a reward of your own holds a hash of what
the reward does: its bytecode, so that comments, blank lines and docstrings do not count, the
defaults of its arguments, the variables around it, the object it belongs to, and every function and
constant of your own files that it reaches. A function or class of an installed package counts by
its name. What cannot be read, such as a lock or an open connection, needs a name from you.
"""

from __future__ import annotations

import contextlib
import copyreg
import dis
import functools
import hashlib
import importlib
import inspect
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from alignpro.config import ConfigError, ModelSpec
from alignpro.evaluation import RewardError, rewards_of
from alignpro.runs import RunError, digest
from alignpro.texts import Prompt, Response, Reward

HOW_TO_NAME = (
    'give it a name, as in `reward.name = "mine-1"`, and another one whenever it changes: its runs '
    "are kept under that name"
)
PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...))


def reward_name(reward: Callable) -> str:
    """Return what tells a reward apart: its own `name`, or that of its code with a hash.

    Raises RunError where a reward without `name` reaches what cannot be read; the message says how
    to name it.
    """
    if (name := _given_name(reward)) is not None:
        return name
    return f"{_short_name(reward)}-{digest(_described(reward))}"


def reward_parts(reward: Callable) -> dict[str, str]:
    """Return a hash for each part of a reward, by what it is, such as "the global LIMIT".

    Two rewards of the same function are compared with it. A reward with a `name` has no parts.
    """
    if _given_name(reward) is not None:
        return {}
    return dict(_leaves(_described(reward), ()))


def checked_name(reward: Reward, prompts: Sequence[Prompt]) -> str:
    """Return `reward_name`, after trying the reward on a few `prompts`, if there are any.

    The first answer is in words and the others are empty, which a frozen LLM may also write. Raises
    RewardError if the reward fails or returns anything but one finite number for each, and RunError
    as `reward_name` does, also if being called changes the name.
    """
    name = reward_name(reward)
    if not prompts:
        return name
    short, answers = _short_name(reward), [""] * len(prompts)
    answers[0] = "A short answer, of one sentence."
    try:
        rewards_of(reward, prompts, [Response(answer) for answer in answers])
    except RewardError as error:
        raise RewardError(f"{error}. It was tried before anything was trained") from None
    except Exception as error:
        raise RewardError(
            f"the reward {short} fails when it is tried on {len(prompts)} prompts, the second with "
            f"an empty answer: {type(error).__name__}: {error}"
        ) from error
    if reward_name(reward) != name:
        raise RunError(
            f"the reward {short} changes what it reaches when it is called, as a counter or a "
            f"cache does, so its runs would not be found again: {HOW_TO_NAME}"
        )
    return name


def load_reward(text: str) -> Reward:
    """Return the reward that `text` names.

    text: MODULE:FUNCTION, where MODULE is a module or a Python file and FUNCTION is any callable in
        it; or a reward model, by its id on the Hub or its folder.

    Raises ConfigError if there is no such module or function.
    """
    module, colon, function = text.rpartition(":")
    if not colon or not function.isidentifier():
        from alignpro.sources.reward_model import RewardModel

        return RewardModel(ModelSpec(text))
    if module.endswith(".py"):
        places = [Path.cwd(), *map(Path, sys.path)]
        path = next((p / module for p in places if (p / module).is_file()), Path(module))
        folder, module = str(path.resolve().parent), path.stem
    else:
        folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"the reward {text}: cannot import {module!r} ({error}). It is searched for beside the "
            f"preset, in {Path.cwd()} and among the installed packages"
        ) from error
    if not callable(reward := getattr(found, function, None)):
        known = [n for n, v in vars(found).items() if callable(v) and not n.startswith("_")]
        raise ConfigError(
            f"the reward {text}: {found.__file__} has no function {function!r}; it has "
            f"{', '.join(known) or 'none'}"
        )
    return reward


def _given_name(reward: object) -> str | None:
    name = getattr(reward, "name", None) if callable(reward) else None
    return name if isinstance(name, str) and name else None


def _short_name(reward: object) -> str:
    """The name of a function, also of one inside a partial, or that of an object's class."""
    while isinstance(reward, functools.partial):
        reward = reward.func
    return getattr(reward, "__qualname__", None) or type(reward).__qualname__


def _described(reward: Callable) -> dict | list:
    try:
        return _Description().of(reward)
    except _UnreadableError as error:
        raise RunError(
            f"the reward {_short_name(reward)} cannot be told from others, because it reaches "
            f"{error}: {HOW_TO_NAME}"
        ) from None


def _leaves(node: object, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """A hash of each leaf of nested dicts, by the keys that lead to it."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, (*path, key))
    else:
        yield " of ".join(reversed(path)), digest(node)


class _UnreadableError(Exception):
    """Raised at a value whose content cannot be read; the message names it."""


class _Description:
    """Turns a reward, and all that it reaches, into JSON values that depend on its content alone.

    A function, an object and a class become dicts, whose keys are words for a reader; all other
    values become lists. Functions, classes and modules are described once and then referred to by
    number. A value within itself is referred to by its depth.
    """

    def __init__(self):
        self.numbers: dict[int, tuple[int, object]] = {}  # with the object, which keeps its id
        self.path: list[int] = []

    def of(self, value: object) -> Any:
        if type(value) in PLAIN:
            text = repr(value)
            long = len(text) > 200
            return [
                type(value).__name__,
                hashlib.sha256(text.encode()).hexdigest() if long else text,
            ]
        if isinstance(value, (types.FunctionType, types.ModuleType, type)):
            if id(value) in self.numbers:
                return ["again", self.numbers[id(value)][0]]
            self.numbers[id(value)] = len(self.numbers), value
        elif id(value) in self.path:
            return ["within", self.path.index(id(value))]
        self.path.append(id(value))
        try:
            return self._of(value)
        finally:
            self.path.pop()

    def _of(self, value: Any) -> Any:
        if len(self.path) > 1 and (name := _given_name(value)) is not None:
            return ["named", name]
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            return ["tensor", str(value.dtype), [*value.shape], hashlib.sha256(raw).hexdigest()]
        if isinstance(value, types.ModuleType):
            return ["module", value.__name__]
        if isinstance(value, (staticmethod, classmethod)):
            return self.of(value.__func__)
        if isinstance(value, property):
            return ["property", self.of(value.fget), self.of(value.fset)]
        if isinstance(value, functools.partial):
            parts = {"the function": value.func} | {
                f"argument {i + 1}": v for i, v in enumerate(value.args)
            }
            parts |= {f"argument {name}": v for name, v in sorted(value.keywords.items())}
            return {key: self.of(v) for key, v in parts.items()}
        if isinstance(value, types.MethodType):
            return {"the method": self.of(value.__func__), "its object": self.of(value.__self__)}
        name = getattr(value, "__qualname__", None)
        if isinstance(name, str) and _from_a_package(getattr(value, "__module__", None)):
            return ["library", value.__module__, name]
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value)
        if hasattr(value, "__wrapped__"):  # a cache around a function, whose content does not count
            return self.of(value.__wrapped__)
        if isinstance(name, str) and inspect.isroutine(value):  # of C: `len`, `"abc".count`
            owner = getattr(value, "__self__", None)
            return ["built in", name, None if inspect.ismodule(owner) else self.of(owner)]
        if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
            return [type(value).__name__, *map(self.of, value)]
        if (
            isinstance(value, (dict, types.MappingProxyType))
            and type(value).__module__ == "builtins"
        ):
            return ["dict", *([self.of(k), self.of(v)] for k, v in value.items())]
        if type(value) in (set, frozenset):
            return ["set", *sorted(map(digest, map(self.of, value)))]
        return self._object(value)

    def _function(self, function: types.FunctionType) -> dict:
        code, known = function.__code__, function.__globals__
        names, defaults = code.co_varnames[: code.co_argcount], function.__defaults__ or ()
        pairs = [*zip(names[len(names) - len(defaults) :], defaults)]
        pairs += (function.__kwdefaults__ or {}).items()
        reached = {f"the default {name}": value for name, value in pairs}
        for name, cell in zip(code.co_freevars, function.__closure__ or ()):
            with contextlib.suppress(ValueError):  # not set yet
                reached[f"the variable {name}"] = cell.cell_contents
        for name in sorted(_globals(code) & known.keys()):
            value = known[name]
            if isinstance(value, types.ModuleType) and not _from_a_package(value.__name__):
                used = _attributes(code) & vars(value).keys()
                reached |= {f"{name}.{part}": vars(value)[part] for part in sorted(used)}
            else:
                reached[f"the global {name}"] = value
        told = {"the code": self._code(code, function.__doc__)}
        return told | {key: self.of(value) for key, value in reached.items()}

    def _code(self, code: types.CodeType, doc: str | None = None) -> list:
        constants = list(code.co_consts)
        if constants and doc is not None and constants[0] == doc:
            constants[0] = None
        told = [self._code(c) if isinstance(c, types.CodeType) else self.of(c) for c in constants]
        return ["code", code.co_code.hex(), code.co_exceptiontable.hex(), code.co_names,
                code.co_varnames, code.co_freevars, code.co_argcount, code.co_kwonlyargcount,
                code.co_flags, told]  # fmt: skip

    def _class(self, kind: type) -> dict:
        told = {"the bases": ["bases", *map(self.of, kind.__bases__)]}
        for name, value in vars(kind).items():
            method = isinstance(value, (types.FunctionType, staticmethod, classmethod, property))
            if method or not name.startswith(("__", "_abc_")):
                told[name] = self.of(value)
        return told

    def _object(self, value: Any) -> dict:
        """What pickle would keep of an object, whose class may be your own."""
        try:
            registered = copyreg.dispatch_table.get(type(value))
            reduced = registered(value) if registered else value.__reduce_ex__(4)
        except Exception:
            raise _UnreadableError(
                f"a {type(value).__qualname__}, whose content is hidden"
            ) from None
        if isinstance(reduced, str):
            return {"the name": [value.__module__, reduced]}
        make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        told = {"the class": self.of(type(value))}
        if make.__module__ != "copyreg":
            told["the maker"] = self.of(make)
        told["the arguments"] = ["tuple", *(self.of(a) for a in arguments if a is not type(value))]
        slots = state if isinstance(state, tuple) and len(state) == 2 else (state,)
        if all(s is None or isinstance(s, dict) for s in slots):
            for name, part in (item for s in slots if s for item in s.items()):
                told[f"the attribute {name}"] = self.of(part)
        else:
            told["the state"] = self.of(state)
        for name, found in (("the items", items), ("the pairs", pairs)):
            if found is not None:
                told[name] = self.of([*found])
        return told


def _from_a_package(module: str | None) -> bool:
    """Whether a module is Python's, an installed package's, or this project's."""
    if not module or module == "__main__":
        return False
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top == __name__.partition(".")[0]:
        return True
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return bool({"site-packages", "dist-packages"} & {*Path(file).parts})


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code and that of all functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _globals(code: types.CodeType) -> set[str]:
    loads = ("LOAD_GLOBAL", "LOAD_NAME")
    return {i.argval for c in _codes(code) for i in dis.get_instructions(c) if i.opname in loads}


def _attributes(code: types.CodeType) -> set[str]:
    return {name for c in _codes(code) for name in c.co_names}
