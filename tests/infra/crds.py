"""Custom resources against their definitions, as an API server would take them: unknown fields,
types, limits, defaults, and the rules in CEL."""

import copy
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cel
import jsonschema
import yaml

Schema = dict[str, Any]


@functools.cache
def definitions(folder: Path) -> Mapping[tuple[str, str], Schema]:
    """Schema by (apiVersion, kind), of all definitions in ``folder``."""
    found = {}
    for file in sorted(folder.glob("*/*.yaml")):
        spec = yaml.load(file.read_text("utf-8"), yaml.CSafeLoader)["spec"]
        for version in spec["versions"]:
            if version["served"]:
                key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
                found[key] = version["schema"]["openAPIV3Schema"]
    return found


def complaints(manifest: dict[str, Any], folder: Path) -> list[str]:
    """What an API server would refuse, one line each; nothing is fine."""
    key = (manifest["apiVersion"], manifest["kind"])
    schema = definitions(folder).get(key)
    if schema is None:
        return [f"no definition of {key[1]} in {key[0]}"]
    whole = _completed(copy.deepcopy(manifest), schema)
    checker = jsonschema.Draft202012Validator(_strict_of(key, folder))
    found = [
        f"{'.'.join(map(str, e.absolute_path))}: {e.message}" for e in checker.iter_errors(whole)
    ]
    return found + [f"{path}: {message}" for path, message in _rules(whole, schema, "")]


@functools.cache
def _strict_of(key: tuple[str, str], folder: Path) -> Schema:
    schema = copy.deepcopy(definitions(folder)[key])
    schema["properties"]["metadata"] = {"type": "object"}  # its fields are every object's
    return _strict(schema)


def _strict(schema: Schema) -> Schema:
    """As JSON Schema that lets no unknown field through."""
    if schema.get("x-kubernetes-int-or-string"):
        kept = {k: v for k, v in schema.items() if k in ("pattern", "anyOf", "allOf")}
        return {"type": ["integer", "string"], **kept}
    strict = {k: v for k, v in schema.items() if not k.startswith("x-") and k != "format"}
    if "properties" in schema:
        strict["properties"] = {k: _strict(v) for k, v in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            strict["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        strict["additionalProperties"] = _strict(schema["additionalProperties"])
    if "items" in schema:
        strict["items"] = _strict(schema["items"])
    if schema.pop("nullable", False):
        strict = {"anyOf": [strict, {"type": "null"}]}
    return strict


def _completed(value: Any, schema: Schema) -> Any:
    """With defaults filled in and nulls dropped, in place, as the API server does first."""
    if isinstance(value, dict):
        for name in [name for name, inner in value.items() if inner is None]:
            del value[name]
        for name, inner in schema.get("properties", {}).items():
            if name not in value and "default" in inner:
                value[name] = copy.deepcopy(inner["default"])
        for name in value:
            value[name] = _completed(value[name], _at(schema, name))
    elif isinstance(value, list):
        value[:] = [_completed(inner, schema.get("items", {})) for inner in value]
    return value


def _at(schema: Schema, name: str) -> Schema:
    more = schema.get("additionalProperties")
    found: Schema = schema.get("properties", {}).get(name, more if isinstance(more, dict) else {})
    return found


def _rules(value: Any, schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    """The CEL rules that do not hold; not those on changes (``oldSelf``)."""
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" not in rule["rule"] and not cel.evaluate(rule["rule"], {"self": value}):
            yield path, rule.get("message", rule["rule"])
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _rules(inner, _at(schema, name), f"{path}.{name}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _rules(inner, schema.get("items", {}), f"{path}.{number}")
