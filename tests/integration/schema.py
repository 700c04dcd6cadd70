# schema.py - checks what freezerctl --json prints against freezerctl.schema.json, with as much of JSON Schema as that uses.
"""
Stricter than the schema in one thing: a field that it does not list is wrong, so that it stays complete.
"""
import json
import os
import re

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../client/ctl/freezerctl.schema.json")
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
KNOWN = {"$ref", "description", "type", "required", "properties", "additionalProperties", "items", "enum", "const",
         "pattern", "minimum", "allOf", "oneOf"}

with open(PATH, encoding="utf-8") as _file:
    _root = json.load(_file)


def _has_type(value, name):
    if name == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if name == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, TYPES[name])


def _resolve(schema):
    return _root["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def _properties(schema):
    """All that a schema and those that it is made of list."""
    schema = _resolve(schema)
    found = dict(schema.get("properties", {}))
    for part in schema.get("allOf", []):
        found.update(_properties(part))
    return found


def _object_mistakes(schema, value, where):
    yield from (f"{where}: no '{key}'" for key in schema.get("required", []) if key not in value)
    for key, item in value.items():
        if key in schema.get("properties", {}):
            yield from _mistakes(schema["properties"][key], item, f"{where}.{key}")
        elif isinstance(schema.get("additionalProperties"), dict):
            yield from _mistakes(schema["additionalProperties"], item, f"{where}.{key}")


def _mistakes(schema, value, where):
    """What is wrong with a value, in sentences."""
    unknown = set(schema) - KNOWN
    assert not unknown, f"this checker does not know {unknown}"
    if "$ref" in schema:
        yield from _mistakes(_resolve(schema), value, where)
    names = schema.get("type", [])
    names = [names] if isinstance(names, str) else names
    if names and not any(_has_type(value, name) for name in names):
        yield f"{where}: {value!r} is no {' or '.join(names)}"
        return
    if "const" in schema and value != schema["const"] or "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is not {schema.get('const', schema.get('enum'))!r}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{where}: {value!r} does not match {schema['pattern']}"
    if "minimum" in schema and value is not None and value < schema["minimum"]:
        yield f"{where}: {value!r} is below {schema['minimum']}"
    if isinstance(value, dict):
        yield from _object_mistakes(schema, value, where)
    for i, item in enumerate(value if isinstance(value, list) else []):
        yield from _mistakes(schema.get("items", {}), item, f"{where}[{i}]")
    for part in schema.get("allOf", []):
        yield from _mistakes(part, value, where)


def _unlisted(schema, value, where):
    """Fields of objects that the schema does not list."""
    if isinstance(value, list):
        items = _resolve(schema).get("items", {})
        for i, item in enumerate(value):
            yield from _unlisted(items, item, f"{where}[{i}]")
    elif isinstance(value, dict):
        listed = _properties(schema)
        for key, item in value.items():
            if key in listed:
                yield from _unlisted(listed[key], item, f"{where}.{key}")
            elif listed:
                yield f"{where}.{key} is not in the schema"


def names_of(part):
    """The values of 'schema' that a part of the schema is for."""
    field = part["properties"]["schema"]
    return field.get("enum", [field.get("const")])


def all_names():
    return {name for part in _root["oneOf"] for name in names_of(_resolve(part))}


def find_mistakes(value):
    """Sentences on all that is wrong with an object that freezerctl printed; empty if it is right."""
    found = [part for part in map(_resolve, _root["oneOf"]) if value.get("schema") in names_of(part)]
    if len(found) != 1:
        return [f"schema {value.get('schema')!r} is in {len(found)} parts"]
    return [*_mistakes(found[0], value, "$"), *_unlisted(found[0], value, "$")]
