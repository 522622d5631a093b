"""Settings: each is declared once, as a field of a frozen dataclass that lives with its command.

A command's dataclass becomes its flags (``add_arguments``), is filled from defaults, a YAML file, flags and ``--set``
(``resolve``), is saved with every run (``dump``) and decides whether a run may be resumed (``difference``)::

    @dataclass(frozen=True)
    class SolveConfig:
        question: str = option(REQUIRED, "the question", positional=True)
        eta: Count = option(4096, "most tokens in a segment")
        verbose: bool = option(False, "print every call", identity=False)

Types a setting may have: ``str``, ``int``, ``Count``, ``float``, ``bool``, ``Path``, an ``Enum`` (by value),
``Literal[...]``, ``X | None``, ``tuple[X, ...]``, ``tuple[X, Y]``, ``dict[str, X]``, and another frozen dataclass,
whose settings are named with dots (``sampling.temperature``).
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from inftythink._values import COUNT, Mismatch, choices_of, plain, read, type_name, without_none
from inftythink.errors import InputError, UsageError

C = TypeVar("C")

Count = Annotated[int, COUNT]
"""A whole number of tokens, at least 0. As text it may end in k (1024) or m (1024 * 1024): 4k, 32k, 1m."""

REQUIRED: Any = object()
"""The default of a setting that has none: the user must give it."""

DIGEST = "digest"
"""The key that a saved configuration holds beside its settings; ignored where a file is given to ``--config``."""

_DEST = "setting:"


def option(
    default: Any,
    help: str,
    *,
    flag: str | None = None,
    positional: bool = False,
    repeat: bool = False,
    choices: Sequence[str] | None = None,
    metavar: str | None = None,
    identity: bool = True,
) -> Any:
    """Declare one setting: the field of a frozen dataclass.

    Args:
        default: its value when not given; ``REQUIRED`` when it must be. A dict is copied for each configuration.
        help: one line without a full stop, for ``--help``.
        flag: the flag, when not the field's name in kebab case (``--outer-inner`` for a nested one).
        positional: given without a flag (at most one a command; a tuple takes all that are left).
        repeat: a tuple's flag takes one value and may be given again, instead of taking several at once.
        choices: the texts it may be, where a ``Literal`` or an ``Enum`` cannot say it.
        metavar: the placeholder in ``--help``.
        identity: False when it does not change the result (concurrency, verbosity, output path): then it is left out
            of ``digest`` and ``difference``.
    """
    about = _Option(help, flag, positional, repeat, tuple(choices or ()), metavar, identity)
    if default is REQUIRED:
        return dataclasses.field(kw_only=True, metadata={"option": about})
    if isinstance(default, dict):
        return dataclasses.field(kw_only=True, metadata={"option": about}, default_factory=lambda: dict(default))
    return dataclasses.field(kw_only=True, metadata={"option": about}, default=default)


@dataclasses.dataclass(frozen=True, slots=True)
class _Option:
    """What ``option`` was told."""

    help: str
    flag: str | None
    positional: bool
    repeat: bool
    choices: tuple[str, ...]
    metavar: str | None
    identity: bool


_PLAIN = _Option("", None, False, False, (), None, True)


@dataclasses.dataclass(frozen=True, slots=True)
class _Setting:
    """One leaf of a configuration: its dotted key, type, default (``REQUIRED`` if none) and declaration.

    ``nested`` marks the key of a dataclass inside the configuration; its settings follow it.
    """

    key: str
    kind: Any
    default: Any
    about: _Option
    declared: bool
    nested: bool

    @property
    def flag(self) -> str:
        """Its flag on the command line, or its placeholder when it is positional."""
        if self.about.positional:
            return self.about.metavar or self.key.upper()
        return self.about.flag or "--" + self.key.replace(".", "-").replace("_", "-")


def add_arguments(parser: argparse.ArgumentParser, config_class: type[Any]) -> None:
    """Add a flag to ``parser`` for each setting of ``config_class`` that was declared with ``option``.

    A flag that is not given leaves nothing in the namespace (``given`` reads those that are), so that defaults have one
    home and a YAML file can stand between them and the flags.
    """
    for setting in _settings(config_class):
        if not setting.declared or setting.nested:
            continue
        about, kind = setting.about, without_none(setting.kind)
        keywords: dict[str, Any] = {"help": _help(setting), "default": argparse.SUPPRESS}
        if kind is bool:
            keywords["action"] = argparse.BooleanOptionalAction
        else:
            keywords["metavar"] = about.metavar or _metavar(setting)
            if get_origin(kind) is dict or (get_origin(kind) is tuple and about.repeat):
                keywords["action"] = "append"
            elif get_origin(kind) is tuple:
                keywords["nargs"] = _how_many(kind, about.positional)
            elif about.positional:
                keywords["nargs"] = "?"
        if about.positional:
            parser.add_argument(_DEST + setting.key, **keywords)
        else:
            parser.add_argument(setting.flag, dest=_DEST + setting.key, **keywords)


def given(namespace: argparse.Namespace) -> dict[str, Any]:
    """Return what the flags of ``add_arguments`` were given, by dotted key; the ``flags`` of ``resolve``."""
    return {key.removeprefix(_DEST): value for key, value in vars(namespace).items() if key.startswith(_DEST)}


def resolve(
    config_class: type[C],
    yaml_file: str | os.PathLike[str] | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> C:
    """Build a configuration: defaults, over them the YAML file, over it the flags, over them ``sets``.

    Args:
        config_class: the command's frozen dataclass.
        yaml_file: settings as a YAML mapping; nested ones as nested mappings or with dotted keys. A saved
            ``config.yaml`` may be given too.
        sets: texts ``a.b=c``.
        flags: values by dotted key, as ``given`` returns them.

    Raises:
        UsageError: a key is unknown (names it, where, and the closest known one), a value has the wrong type (names
            key, value and what was expected), or a setting without a default was not given.
    """
    layers = _Layers(config_class)
    if yaml_file is not None:
        layers.put_mapping(_read_yaml(Path(yaml_file)), str(yaml_file))
    for key, value in (flags or {}).items():
        layers.put(key, value, layers.known[key].flag if key in layers.known else "flags", text=True)
    for item in sets:
        key, equals, text = item.partition("=")
        if not equals:
            raise UsageError(f"--set {item}: expected KEY=VALUE, for example --set {next(iter(layers.known), 'a.b')}=…")
        layers.put(key.strip(), text, f"--set {item}", text=True)
    config: C = layers.build()
    return config


def to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as JSON and YAML hold it: nested mappings, lists, paths and enums as text."""
    result: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        if field.init:
            value = getattr(config, field.name)
            result[field.name] = to_dict(value) if dataclasses.is_dataclass(value) else plain(value)
    return result


def digest(config: Any) -> str:
    """Return 12 hexadecimal digits that name the configuration: SHA-256 of the canonical JSON of its settings.

    Settings marked ``identity=False`` are left out.
    """
    text = json.dumps(_identity(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def dump(config: Any, path: str | os.PathLike[str]) -> None:
    """Write a configuration and its digest as YAML: whole or not at all."""
    path = Path(path)
    text = yaml.dump({DIGEST: digest(config)} | to_dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def load_dumped(config_class: type[C], path: str | os.PathLike[str]) -> C:
    """Read what ``dump`` wrote.

    Raises:
        InputError: there is no such file, it does not hold ``config_class``, or its digest does not fit its settings.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no saved configuration here; is this a run folder?")
    try:
        told = _read_yaml(path).get(DIGEST)
        config = resolve(config_class, path)
    except UsageError as error:
        raise InputError(f"not a configuration saved by this version: {error}") from error
    if told != digest(config):
        raise InputError(
            f"{path}: its digest is {told}, its settings give {digest(config)}: it was edited by hand, or "
            "saved by another version. Start a new run folder."
        )
    return config


def difference(made: Any, asked: Any) -> list[str]:
    """Say in which settings two configurations of one command differ; empty when a run may be resumed.

    Each text reads on from "this run folder was": ``"made with eta=4096, you asked eta=2048"``. Settings marked
    ``identity=False`` are left out.
    """
    old, new = _identity(made), _identity(asked)
    return [
        f"made with {key}={_show(old.get(key))}, you asked {key}={_show(new.get(key))}"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key)
    ]


def _settings(config_class: type[Any], prefix: str = "", base: Any = None) -> Iterator[_Setting]:
    """Walk the settings of a dataclass; ``base`` is the instance that holds their defaults, if an outer one does."""
    hints = get_type_hints(config_class, include_extras=True)
    for field in dataclasses.fields(config_class):
        if not field.init:
            continue
        kind, key = hints[field.name], prefix + field.name
        default = _default(field) if base is None else getattr(base, field.name)
        inner = without_none(kind)
        nested = dataclasses.is_dataclass(inner)
        about = field.metadata.get("option", _PLAIN)
        yield _Setting(key, kind, default, about, "option" in field.metadata, nested)
        if nested:
            yield from _settings(inner, key + ".", default if dataclasses.is_dataclass(default) else None)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return REQUIRED if field.default is dataclasses.MISSING else field.default


class _Layers:
    """Collects typed values by dotted key, later ones over earlier ones, and builds the configuration of them."""

    def __init__(self, config_class: type[Any]) -> None:
        self.config_class = config_class
        self.known = {setting.key: setting for setting in _settings(config_class)}
        self.values: dict[str, Any] = {}

    def put_mapping(self, mapping: Mapping[Any, Any], where: str, prefix: str = "") -> None:
        """Put the settings of a YAML mapping."""
        for name, value in mapping.items():
            key = f"{prefix}{name}"
            if key == DIGEST and key not in self.known:
                continue
            if isinstance(value, Mapping) and key in self.known and self.known[key].nested:
                self.put_mapping(value, where, key + ".")
            else:
                self.put(key, value, where, text=False)

    def put(self, key: str, value: Any, where: str, text: bool) -> None:
        """Put one setting; ``where`` says in errors who gave it."""
        setting = self.known.get(key)
        if setting is None:
            return self._put_entry(key, value, where, text)
        if setting.nested:
            if setting.kind == without_none(setting.kind) or value not in ((None, "null") if text else (None,)):
                raise UsageError(f"{where}: {key} is a group of settings: give {key}.NAME")
            self._forget_inside(key)
            self.values[key] = None
            return None
        self.values[key] = _read(setting, value, setting.kind, where, text)
        for outer in _outer(key):
            self.values.pop(outer, None)
        return None

    def _put_entry(self, key: str, value: Any, where: str, text: bool) -> None:
        """Put ``map.name``: one entry of a setting that is a mapping."""
        for outer in _outer(key):
            setting = self.known.get(outer)
            if setting and get_origin(without_none(setting.kind)) is dict:
                name = key[len(outer) + 1 :]
                entry = _read(setting, {name: value}, setting.kind, where, text)
                now = self.values.get(outer, setting.default)
                self.values[outer] = {**(now if isinstance(now, dict) else {}), **entry}
                return
        close = difflib.get_close_matches(key, [k for k, s in self.known.items() if not s.nested], n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(self.known)}"
        raise UsageError(f"{where}: unknown setting {key!r}; {hint}")

    def _forget_inside(self, key: str) -> None:
        for inner in [k for k in self.values if k.startswith(key + ".")]:
            del self.values[inner]

    def build(self) -> Any:
        """Build the configuration; what was not given has its default."""
        missing: list[_Setting] = []
        config = self._build(self.config_class, "", None, missing)
        if missing:
            ways = "; ".join(f"{s.key} (give {s.flag}, or {s.key}: in the --config file)" for s in missing)
            raise UsageError(f"missing: {ways}")
        return config

    def _build(self, config_class: type[Any], prefix: str, base: Any, missing: list[_Setting]) -> Any:
        values: dict[str, Any] = {}
        count = len(missing)
        for field in dataclasses.fields(config_class):
            key = prefix + field.name
            setting = self.known.get(key)
            if setting is None:
                continue
            if key in self.values:
                values[field.name] = self.values[key]
            elif setting.nested and (setting.default is REQUIRED or any(k.startswith(key + ".") for k in self.values)):
                inner = setting.default if dataclasses.is_dataclass(setting.default) else None
                values[field.name] = self._build(without_none(setting.kind), key + ".", inner, missing)
            elif setting.default is REQUIRED:
                missing.append(setting)
        if len(missing) > count:
            return None
        try:
            return config_class(**values) if base is None else dataclasses.replace(base, **values)
        except ValueError as error:
            raise UsageError(f"{prefix.rstrip('.') or 'settings'}: {error}") from error


def _read(setting: _Setting, value: Any, kind: Any, where: str, text: bool) -> Any:
    """Read one value; says key, value and what was expected when it does not fit."""
    try:
        result = read(value, kind, text)
    except Mismatch:
        raise UsageError(f"{where}: {setting.key} is to be {_expected(setting)}, not {_show(value)}") from None
    allowed = setting.about.choices
    for item in result if isinstance(result, tuple) else (result,):
        if allowed and item is not None and str(item) not in allowed:
            raise UsageError(f"{where}: {setting.key} is to be {_expected(setting)}, not {_show(item)}")
    return result


def _expected(setting: _Setting) -> str:
    return "one of " + ", ".join(setting.about.choices) if setting.about.choices else type_name(setting.kind)


def _outer(key: str) -> list[str]:
    """The keys around ``a.b.c``: ``a.b``, then ``a``."""
    parts = key.split(".")
    return [".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)]


def _identity(config: Any) -> dict[str, Any]:
    """The settings that change the result, by dotted key, as JSON holds them."""
    result: dict[str, Any] = {}

    def walk(config: Any, prefix: str) -> None:
        for field in dataclasses.fields(config):
            if not field.init or not field.metadata.get("option", _PLAIN).identity:
                continue
            value = getattr(config, field.name)
            if dataclasses.is_dataclass(value):
                walk(value, f"{prefix}{field.name}.")
            else:
                result[prefix + field.name] = plain(value)

    walk(config, "")
    return result


def _show(value: Any) -> str:
    """A value as a user would write it; text in quotes only where it would be misread."""
    if isinstance(value, str):
        return value if value and value == value.strip() and " " not in value else repr(value)
    return json.dumps(plain(value), ensure_ascii=False, default=str)


def _help(setting: _Setting) -> str:
    text = setting.about.help
    if setting.default is REQUIRED:
        text += " (required)"
    elif setting.default not in (None, (), {}, ""):
        shown = setting.default if isinstance(setting.default, tuple) else (setting.default,)
        text += f" (default: {' '.join(_show(plain(item)) for item in shown)})"
    return text.replace("%", "%%")


def _how_many(kind: Any, positional: bool) -> str | int:
    """How many values the flag of a tuple takes."""
    if get_args(kind)[-1] is ...:
        return "*" if positional else "+"
    return len(get_args(kind))


def _metavar(setting: _Setting) -> str:
    choices = list(setting.about.choices) or choices_of(setting.kind)
    if choices:
        return "{" + ",".join(choices) + "}"
    if setting.about.positional:
        return setting.flag
    kind = without_none(setting.kind)
    if get_origin(kind) is dict:
        return "NAME=VALUE"
    return {Count: "N", int: "N", float: "X", Path: "PATH"}.get(kind, "TEXT")


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping; raises ``yaml.constructor.ConstructorError`` on a repeated key."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes text that holds Unicode's own line breaks, which PyYAML writes so that they come back as others."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    odd = any(break_ in text for break_ in "\x85\u2028\u2029\ufeff")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if odd else None)


_Dumper.add_representer(str, _represent_text)


def _read_yaml(path: Path) -> dict[Any, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"{path}: cannot be read: {reason}") from error
    try:
        data = yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UsageError(f"{path}: expected a mapping of settings, found {type(data).__name__}")
    return data
