"""A YAML file read into a pydantic dataclass: an error names the file, the line and the field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

SECTION = "must be a section of `field: value` lines"
DEEPEST = 9  # levels of nesting, more than any preset has
# Plain decimal numbers. YAML 1.1 also reads 010 as 8, 1:30 as 90 and 1e-3 as text.
INTEGER = re.compile(r"[-+]?(0|[1-9]\d{0,17})")
FLOAT = re.compile(r"[-+]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
# Fields that may name a .txt file, relative to the preset, and how it is read.
TEXT_FILES = {
    "meta_prompt": str.strip,
    "menu": lambda text: tuple(line.strip() for line in text.split("\n") if line.strip()),
}


class ConfigError(ValueError):
    """Raised for a preset that cannot be used: says where, why, and what is allowed."""


class FieldError(ValueError):
    """Raised by a section's own check: `why` tells what is wrong with its field at `keys`."""

    def __init__(self, why: str, *keys: str):
        super().__init__(why)
        self.keys = keys


def read_file(
    kind: type[T],
    path: Path,
    top: str,
    named: Mapping[str, Path] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> T:
    """Read the YAML file `path` into the pydantic dataclass `kind`.

    top: what errors call the whole, as in `preset.ppo.lam`.
    named: fields that may name a section instead of holding it, and the folder of its YAML files.
    defaults: the values of fields that the file leaves out.

    Raises ConfigError for a file that cannot be read, and for an unknown field, a field that is set
    twice or missing, a wrong type, and a value out of range.
    """
    return _Reader(top, named or {}).read(kind, path, defaults or {})


class _Reader:
    """Checks what pydantic does not: doubled keys, named sections, and the place of an error."""

    def __init__(self, top: str, named: Mapping[str, Path]):
        self.top, self.named = top, named
        self.places: dict[tuple, str] = {}  # "file:line" by keys, such as ("ppo", "lam")

    def fail(self, keys: tuple, why: str):
        known = next(k for n in range(len(keys) + 1) if (k := keys[: len(keys) - n]) in self.places)
        name = ".".join(map(str, (self.top, *keys)))
        raise ConfigError(f"{self.places[known]}: {name}: {why}") from None

    def read(self, kind: type, path: Path, defaults: Mapping[str, Any]) -> Any:
        values = self.values(self.compose(path), path, ())
        values = {**defaults, **values} if isinstance(values, dict) else values
        try:
            return TypeAdapter(kind).validate_python(values)
        except ValidationError as error:
            # A misspelt field is unknown, and the right one is missing: report the misspelling.
            order = {"unexpected_keyword_argument": 0, "missing": 2}
            errors = sorted(error.errors(), key=lambda e: order.get(e["type"], 1))
        keys, problem, value = (errors[0][name] for name in ("loc", "type", "input"))
        if problem == "unexpected_keyword_argument":
            self.fail(keys, f"unknown field; known: {', '.join(_field_names(kind, keys))}")
        if problem == "missing":
            names = [
                e["loc"][-1] for e in errors if e["type"] == problem and e["loc"][:-1] == keys[:-1]
            ]
            self.fail(keys[:-1], f"missing {', '.join(names)}")
        if problem in ("dataclass_type", "dict_type"):
            self.fail(keys, SECTION)
        while keys not in self.places:  # pydantic adds the choices of a union
            keys = keys[:-1]
        keys += getattr(errors[0].get("ctx", {}).get("error"), "keys", ())
        why = errors[0]["msg"].removeprefix("Value error, ").replace("Input should", "must")
        got = "" if isinstance(value, (dict, tuple)) else f", got {value!r:.60}"
        self.fail(keys, why + got)

    def compose(self, path: Path) -> yaml.Node:
        """Parse the file into YAML nodes, which have their line."""
        try:
            text = path.read_text(encoding="utf-8")
            depth = 0
            for event in yaml.parse(text, yaml.SafeLoader):
                depth += isinstance(event, yaml.CollectionStartEvent)
                depth -= isinstance(event, yaml.CollectionEndEvent)
                if depth > DEEPEST or isinstance(event, yaml.AliasEvent):
                    line = event.start_mark.line + 1
                    raise ConfigError(f"{path}:{line}: {self.top}: nested too deeply, or an alias")
            node = yaml.compose(text, yaml.SafeLoader)
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise ConfigError(f"{path}:{line}: {self.top}: not UTF-8 text") from None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1
            raise ConfigError(f"{path}:{line}: {self.top}: not valid YAML: {error}") from None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise ConfigError(f"{path}:{line}: {self.top}: not valid YAML: {error}") from None
        if node is None:
            raise ConfigError(f"{path}:1: {self.top}: the file is empty")
        return node

    def values(self, node: yaml.Node, path: Path, keys: tuple) -> Any:
        """Return `node` as a plain value, with tuples for lists."""
        self.places.setdefault(keys, f"{path}:{node.start_mark.line + 1}")
        if node.tag not in yaml.SafeLoader.yaml_constructors:
            self.fail(keys, f"has the tag {node.tag!r}; a preset holds plain values alone")
        if isinstance(node, yaml.SequenceNode):
            return tuple(self.values(n, path, (*keys, i)) for i, n in enumerate(node.value))
        if isinstance(node, yaml.ScalarNode):
            value = _scalar(node)
            if (
                isinstance(value, str)
                and value.endswith(".txt")
                and keys
                and keys[-1] in TEXT_FILES
            ):
                return self.text_file(path.parent / value, keys)
            return value
        found = {}
        for key, value in node.value:
            here = f"{path}:{key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                self.places[keys] = here
                self.fail(keys, "a field's name must be one word")
            below = (*keys, key.value)
            self.places[below] = here
            if key.value in found:
                self.fail(below, "is set twice")
            found[key.value] = (
                self.named_section(value.value, below)
                if not keys and key.value in self.named and isinstance(value, yaml.ScalarNode)
                else self.values(value, path, below)
            )
        return found

    def text_file(self, path: Path, keys: tuple) -> str | tuple[str, ...]:
        """What a field holds that names a text file."""
        try:
            return TEXT_FILES[keys[-1]](path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            self.fail(keys, f"cannot read {path}: {error}")

    def named_section(self, name: str, keys: tuple) -> Any:
        known = {p.stem: p for p in self.named[keys[-1]].glob("*.yaml")}
        if name not in known:
            self.fail(keys, f"{SECTION}, or name one: {', '.join(sorted(known))}")
        self.places[keys] = f"{known[name]}:1"
        return self.values(self.compose(known[name]), known[name], keys)


def _scalar(node: yaml.ScalarNode) -> Any:
    kind = node.tag.rpartition(":")[2]
    if kind in ("bool", "null"):
        return yaml.safe_load(node.value)
    if kind == "int" and INTEGER.fullmatch(node.value):
        return int(node.value)
    if node.style is None and FLOAT.fullmatch(node.value):
        return float(node.value)
    return node.value


def _field_names(kind: type, keys: tuple) -> list[str]:
    """The fields of the section of `kind` that holds the field at `keys`."""
    for key in keys:
        hint = get_type_hints(kind).get(key, kind)
        kind = next((k for k in (hint, *get_args(hint)) if is_dataclass(k)), kind)
    return [f.name for f in fields(kind)]
