#!/usr/bin/env python3
"""The fleet: servers.json, checked. As a program: Ansible's --list and --host, table, refresh.

Imports only the standard library, since Django settings import it; refresh adds boto3 and PyYAML.
"""

from __future__ import annotations

import argparse
import difflib
import json
import math
import os
import re
import reprlib
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).resolve().parent
LIMIT = 16 * 1024 * 1024


class InventoryError(Exception):
    """What is wrong, where, and what to do; exit_code is what a command should end with."""

    def __init__(self, text: str, exit_code: int = 2):
        super().__init__(text)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Host:
    """One server of the fleet."""

    instance_id: str
    public_dns: str
    private_dns: str
    name: str
    roles: tuple[str, ...]
    user: str | None = None
    port: int | None = None
    vars: Mapping = field(default_factory=dict, hash=False)

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(filter(None, dict.fromkeys((self.private_dns, self.public_dns))))

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be called on a command line."""
        return (self.name, *self.addresses)


@dataclass(frozen=True)
class Inventory:
    """The hosts of one servers.json, in its order."""

    hosts: tuple[Host, ...]
    path: Path

    @property
    def roles(self) -> tuple[str, ...]:
        """Every role somebody has, in order of appearance."""
        return tuple(dict.fromkeys(role for host in self.hosts for role in host.roles))

    def find(self, word: str) -> Host | None:
        """The host with this name or address; None where there is none."""
        return next((host for host in self.hosts if word in host.names), None)

    def select(
        self, roles: Iterable[str] = (), hosts: Iterable[str] = (), exclude: Iterable[str] = ()
    ) -> tuple[Host, ...]:
        """Hosts called by name or address or in a role, each once, in inventory order.

        exclude takes away hosts by name, address or role. Nothing asked for is no host.
        Raises InventoryError, with the nearest spelling, for a word the inventory does not know.
        """
        chosen = {*self._found("role", roles, "roles"), *self._found("host", hosts, "names")}
        chosen.difference_update(self._found("host or role", exclude, "names", "roles"))
        return tuple(host for host in self.hosts if host in chosen)

    def _found(self, kind: str, words: Iterable[str], *places: str) -> Iterator[Host]:
        for word in words:
            found = [h for h in self.hosts if any(word in getattr(h, place) for place in places)]
            if not found:
                known = {"names": [host.name for host in self.hosts], "roles": self.roles}
                listed = dict.fromkeys(name for place in places for name in known[place])
                raise InventoryError(f"{self.path}: {_unknown(kind, word, listed)}")
            yield from found


def load(path: str | os.PathLike | None = None) -> Inventory:
    """Reads and checks an inventory file (default: servers.json beside this module).

    Raises InventoryError, and nothing else, saying the file, the place and the remedy.
    """
    path = HERE / "servers.json" if path is None else Path(path)
    return Inventory(_hosts(_read(path), path), path)


def hosts(role: str, path: str | os.PathLike | None = None) -> tuple[Host, ...]:
    """Hosts of one role, in inventory order; () where nobody has it. Raises as load does."""
    return tuple(host for host in load(path).hosts if role in host.roles)


def dump(inventory: Inventory) -> str:
    """The file's text: JSON, one host a line, so that a diff of the file shows hosts."""
    entries = [{key: getattr(host, key) for key in RULES} for host in inventory.hosts]
    lines = [json.dumps({k: v for k, v in e.items() if k in REQUIRED or v}) for e in entries]
    return "[\n  " + ",\n  ".join(lines) + "\n]\n" if lines else "[]\n"


# Reading servers.json: every way it can be wrong is one line of text


def _read(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(LIMIT + 1)
        if len(data) > LIMIT:
            raise InventoryError(f"{path}: is over {LIMIT >> 20} MB: not an inventory; use -I FILE")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InventoryError(f"{path}: line {line}: is not UTF-8; save it as UTF-8") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InventoryError(f"{path}: cannot be read: {reason}; use -I FILE") from None


def _hosts(text: str, source: Path | str) -> tuple[Host, ...]:
    entries = _json(text, source)
    if not isinstance(entries, list):
        raise InventoryError(f"{source}: is {_show(entries)}; it must be a list: [{{…}}, {{…}}]")
    found = tuple(_host(entry, f"{source}: host {n}") for n, entry in enumerate(entries, 1))
    _refuse_twins(found, source)
    return found


def _json(text: str, source: Path | str):
    if not text.strip():
        raise InventoryError(f"{source}: is empty; write [] for a fleet without hosts")
    try:
        hooks = {"parse_constant": _finite, "parse_float": _finite}
        return json.loads(text, object_pairs_hook=_object, **hooks)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        remedy = "look there for a comma or quote too many or too few"
        raise InventoryError(f"{source}: {place}: not JSON: {error.msg}; {remedy}") from None
    except RecursionError:
        raise InventoryError(f"{source}: is nested too deep; a host is one flat {{…}}") from None
    except ValueError as error:
        raise InventoryError(f"{source}: {error}") from None


def _object(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):  # json.loads would keep the last one, silently
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        place = f"host {_show(found['name'])}" if "name" in found else "an object"
        raise ValueError(f"{place}: has the key {_show(twice)} twice; keep one")
    return found


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text[:20]} is not a number JSON can carry; write another")
    return float(text)


def _text_like(pattern: str) -> Callable:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value)


WORD = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"  # safe as a folder, in a shell, in a configuration file
LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
ADDRESS = rf"(?=.{{1,253}}\Z)(?:{BYTE}(?:\.{BYTE}){{3}}|(?:{LABEL}\.)*(?![0-9]+\Z){LABEL})"
WORDS = "up to 64 letters, digits, '.', '_' and '-', the first a letter or digit"
RULES = {  # a host's keys in the file's order: what is accepted, and its name in an error
    "name": (_text_like(WORD), WORDS),
    "roles": (lambda value: _are_roles(value), f"a list of different roles, each {WORDS}"),
    "private_dns": (_text_like(ADDRESS), "a DNS name or an IPv4 address"),
    "public_dns": (_text_like(f"({ADDRESS})?"), 'a DNS name, an IPv4 address, or "" for none'),
    "instance_id": (_text_like(WORD), WORDS),
    "user": (_text_like(WORD), WORDS),
    "port": (lambda value: type(value) is int and 0 < value < 65536, "a number from 1 to 65535"),
    "vars": (lambda value: _are_vars(value), "an object whose keys are letters, digits and '_'"),
}
REQUIRED = ("name", "roles", "private_dns", "public_dns", "instance_id")


def _are_roles(value) -> bool:
    is_role = _text_like(WORD)
    return isinstance(value, list) and all(map(is_role, value)) and len(set(value)) == len(value)


def _are_vars(value) -> bool:  # the names Ansible takes
    return isinstance(value, dict) and all(key.isascii() and key.isidentifier() for key in value)


def _host(entry, place: str) -> Host:
    if not isinstance(entry, dict):
        raise InventoryError(f"{place}: is {_show(entry)}; it must be {{…}}")
    place += f" ({_show(entry['name'])})" if "name" in entry else ""
    _check_keys(entry, place)
    for key, value in entry.items():
        accepts, wanted = RULES[key]
        if not accepts(value):
            raise InventoryError(f"{place}: {key} is {_show(value)}; it must be {wanted}")
    return Host(**entry | {"roles": tuple(entry["roles"])})


def _check_keys(entry: dict, place: str) -> None:
    for key in entry:
        if key not in RULES:
            raise InventoryError(f"{place}: {_unknown('key', key, RULES)}")
    missing = [key for key in REQUIRED if key not in entry]
    if missing:
        raise InventoryError(f"{place}: has no {', no '.join(missing)}; add what is missing")


def _refuse_twins(found: Iterable[Host], source: Path | str) -> None:
    """Names, addresses and instance ids share one space, so that a word never means two hosts."""
    owners: dict[str, Host] = {}
    for host in found:
        for word in (*host.names, host.instance_id):
            owner = owners.setdefault(word.lower(), host)
            if owner is not host:
                both = " and ".join(f"{h.name} ({h.instance_id})" for h in (owner, host))
                raise InventoryError(f"{source}: both {both} have {word}; give each its own")


def _unknown(kind: str, word: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(str(word)[:100], known, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    more = f" and {len(known) - 40} more" if len(known) > 40 else ""
    return f"no {kind} {_show(word)}; {hint}known: {', '.join(known[:40]) or 'none'}{more}"


def _show(value) -> str:
    short = reprlib.Repr()
    short.maxstring = 80
    return short.repr(value)


# For Ansible and for people


def ansible_list(inventory: Inventory) -> dict:
    """What Ansible's --list asks for: a group for each role, and the variables of every host."""
    groups = {"all": [host.name for host in inventory.hosts], "ungrouped": []}
    for role in inventory.roles:
        group = re.sub("^[0-9]|[^A-Za-z0-9_]", "_", role)  # the names Ansible accepts
        if group in groups:
            problem = f"role {role} meets another group of Ansible's, {group}; rename the role"
            raise InventoryError(f"{inventory.path}: {problem}")
        groups[group] = [host.name for host in inventory.select(roles=[role])]
    answer = {name: {"hosts": names} for name, names in groups.items()}
    return answer | {"_meta": {"hostvars": ansible_vars(inventory)}}


def ansible_vars(inventory: Inventory) -> dict[str, dict]:
    """Ansible's variables of each host by name; those set in servers.json win."""
    key = _connect_with(inventory.path)
    return {host.name: _login(host, key) | dict(host.vars) for host in inventory.hosts}


def _login(host: Host, key: str) -> dict:
    login = {"host": getattr(host, key) or host.private_dns, "user": host.user, "port": host.port}
    return {f"ansible_{what}": value for what, value in login.items() if value}


def _connect_with(path: Path) -> str:
    choices = ("private_dns", "public_dns")
    try:
        key = _settings(path, "fleet").get("connect_with", choices[0])
    except ImportError:  # Ansible's machine may have no PyYAML of ours
        return choices[0]
    if key not in choices:
        raise InventoryError(f"fabric.yml: fleet.connect_with: {_unknown('choice', key, choices)}")
    return key


def table(inventory: Inventory) -> str:
    """The fleet for people, one host a line."""
    keys = [key for key in RULES if key != "vars"]
    rows = [[key.upper() for key in keys]]
    rows += [[_text(getattr(host, key)) for key in keys] for host in inventory.hosts]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _text(value) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value or "-")


def _settings(path: Path, section: str) -> dict:
    """A section of the fabric.yml beside the inventory file, or else beside this program."""
    import yaml

    file = path.with_name("fabric.yml")
    file = file if file.is_file() else HERE / "fabric.yml"
    try:
        everything = (file.is_file() and yaml.safe_load(file.read_bytes())) or {}
        return dict(everything.get(section) or {})
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        remedy = f"write {section} as `key: value` lines"
        raise InventoryError(f"{file}: cannot be read: {_one_line(error)}; {remedy}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


# Refreshing servers.json from EC2

PAGE = 500
SETTINGS = {"region": "", "profile": "", "filters": {}, "role_tag": "Roles", "name_tag": "Name"}
REMEDIES = {  # by the code or the class of the error
    "Unauthorized": "allow this login ec2:DescribeInstances",
    "Credential|Token|Expired|AuthFailure|SSO": "log in to AWS again",
    "Throttl|RequestLimit": "wait a minute",
    "Region|Profile|Param|ValueError": "correct `inventory:` in fabric.yml",
    "": "check the network and the region",
}


def refresh(path: Path, *, force: bool) -> None:
    """Brings the file up to date with EC2 and prints what differs; user, port and vars stay.

    Raises InventoryError where EC2 cannot be believed (5) or, without force, too much would be
    lost (6); the file is then as it was.
    """
    old = load(path) if path.exists() else Inventory((), path)
    pairs = _pairs(old.hosts, _from_ec2(_ec2_settings(path)))
    new = Inventory(tuple(host for _, host in pairs), path)
    kept = {was for was, _ in pairs}
    gone = [host for host in old.hosts if host not in kept]
    lines = [*_changes(pairs), *(f"- {_brief(host)}" for host in gone), *_takeovers(old, new)]
    print(*lines or ["no difference"], sep="\n", flush=True)
    losses = "; ".join(_losses(old, new, len(gone)))
    if losses and not force:
        raise InventoryError(f"{path}: nothing written: {losses}; add --force if that is right", 6)
    if lines:
        save(new)


def _ec2_settings(path: Path) -> SimpleNamespace:
    given = _settings(path, "inventory")
    for key, value in given.items():
        if key not in SETTINGS:
            raise InventoryError(f"fabric.yml: inventory: {_unknown('key', key, SETTINGS)}")
        if type(value) is not type(SETTINGS[key]):
            wanted = "`name: value` lines" if key == "filters" else "text"
            raise InventoryError(f"fabric.yml: inventory.{key}: write {wanted}, not {_show(value)}")
    return SimpleNamespace(**SETTINGS | given)


def _from_ec2(settings: SimpleNamespace) -> tuple[Host, ...]:
    found = [_from_instance(instance, settings) for instance in _instances(settings)]
    named = tuple(host for host in found if host)
    if not named:
        remedy = "correct `inventory:` in fabric.yml, or tag the instances"
        raise InventoryError(f"EC2 has no running host of this fleet: nothing written; {remedy}", 5)
    return _hosts(dump(Inventory(named, HERE)), "EC2")


def _instances(settings: SimpleNamespace) -> list[dict]:
    """Running and pending instances by id, once every page has come whole."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        reservations = [r for page in _pages(settings) for r in page["Reservations"]]
        found = {i["InstanceId"]: i for r in reservations for i in r["Instances"]}
    except KeyError as error:
        remedy = "nothing written; run it again"
        raise InventoryError(f"EC2's answer is not whole, it lacks {error}: {remedy}", 5) from None
    except (BotoCoreError, ClientError, ResponseParserError, ValueError, OSError) as error:
        answer = getattr(error, "response", None) or {}
        code = answer.get("Error", {}).get("Code") or type(error).__name__
        remedy = next(text for pattern, text in REMEDIES.items() if re.search(pattern, code))
        problem = f"EC2 was not read: {_one_line(error)}: nothing written"
        raise InventoryError(f"{problem}; {remedy}, then run it again", 5) from None
    return [found[instance_id] for instance_id in sorted(found)]


def _pages(settings: SimpleNamespace) -> Iterable[dict]:
    import boto3
    from botocore.config import Config

    wanted = settings.filters | {"instance-state-name": ["pending", "running"]}
    filters = [{"Name": k, "Values": v if type(v) is list else [v]} for k, v in wanted.items()]
    region, profile = settings.region or None, settings.profile or None
    session = boto3.Session(region_name=region, profile_name=profile)
    patience = Config(connect_timeout=10, read_timeout=60, retries={"mode": "standard"})
    paginator = session.client("ec2", config=patience).get_paginator("describe_instances")
    return paginator.paginate(Filters=filters, PaginationConfig={"PageSize": PAGE})


def _from_instance(instance: dict, settings: SimpleNamespace) -> Host | None:
    """The host an instance is; None, with a line saying why, where the fleet cannot use it."""
    tags = {tag.get("Key"): tag.get("Value", "") for tag in instance.get("Tags", ())}
    name, roles = tags.get(settings.name_tag), tags.get(settings.role_tag, "")
    roles = tuple(dict.fromkeys(roles.replace(",", " ").split()))
    private = instance.get("PrivateDnsName") or instance.get("PrivateIpAddress")
    needed = {f"{settings.name_tag} tag": name, f"{settings.role_tag} tag": roles}
    lacking = [what for what, value in (needed | {"private address": private}).items() if not value]
    if lacking:
        print(f"skipped {instance['InstanceId']}: it has no {' and no '.join(lacking)}")
        return None
    return Host(instance["InstanceId"], instance.get("PublicDnsName", ""), private, name, roles)


def _pairs(old: Iterable[Host], found: Iterable[Host]) -> list[tuple[Host | None, Host]]:
    """Each host with what it was, by instance id or else by name; what was set by hand is kept."""
    current = {host.instance_id for host in found}
    by_id = {host.instance_id: host for host in old}
    by_name = {host.name: host for host in old if host.instance_id not in current}
    pairs = [(by_id.get(host.instance_id) or by_name.get(host.name), host) for host in found]
    return [
        (was, replace(host, user=was.user, port=was.port, vars=was.vars) if was else host)
        for was, host in pairs
    ]


def _changes(pairs: Iterable[tuple[Host | None, Host]]) -> Iterator[str]:
    for was, host in pairs:
        if was is None:
            yield f"+ {_brief(host)}"
            continue
        for key in RULES:
            before, after = getattr(was, key), getattr(host, key)
            if before != after:
                yield f"~ {was.name} {key}: {_text(before)} → {_text(after)}"


def _takeovers(old: Inventory, new: Inventory) -> Iterator[str]:
    owners = {address: host for host in old.hosts for address in host.addresses}
    for host in new.hosts:
        for address in host.addresses:
            before = owners.get(address, host).instance_id
            if before != host.instance_id:
                change = f"was {before}, is now {host.instance_id} ({host.name})"
                yield f"! {address} {change}: its host key will be another"


def _losses(old: Inventory, new: Inventory, gone: int) -> Iterator[str]:
    yield from (f"role {role} would be empty" for role in old.roles if role not in new.roles)
    if gone * 5 > len(old.hosts):
        yield f"{gone} of {len(old.hosts)} hosts would go"


def _brief(host: Host) -> str:
    return " ".join((host.name, _text(host.roles), host.private_dns, host.instance_id))


def save(inventory: Inventory) -> None:
    """Writes its file, keeping what was there as servers.json.previous. Raises InventoryError."""
    path = inventory.path.resolve()  # a link to the file stays a link
    try:
        if path.exists():
            _put(path.with_name(f"{path.name}.previous"), path.read_bytes(), path)
        _put(path, dump(inventory).encode(), path)
    except OSError as error:
        problem = f"cannot be written: {error.strerror}"
        raise InventoryError(f"{path}: {problem}; it is as it was") from None


def _put(path: Path, data: bytes, like: Path) -> None:
    """Writes a file whole or not at all, with the permissions of another."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(scratch, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if like.exists():
            shutil.copymode(like, scratch)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


# The command line


def main(arguments: list[str] | None = None) -> int:
    """Answers one command; returns the exit code."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.force and asked.command != "refresh":
        parser.error("--force belongs to refresh")
    try:
        _answer(asked)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough; let no later flush complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except InventoryError as error:
        print(f"inventory: {error}", file=sys.stderr)
        return error.exit_code
    except ImportError as error:  # only refresh needs more than Python itself
        remedy = "run it with the Python of .venv: .venv/bin/python inventory.py refresh"
        print(f"inventory: refresh needs {error.name}; {remedy}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The fleet of servers.json.", allow_abbrev=False)
    parser.add_argument("-I", "--inventory", metavar="FILE", help="instead of servers.json")
    parser.add_argument("--force", action="store_true", help="refresh even if much would be lost")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--list", action="store_true", help="Ansible: groups, hosts and variables")
    asked.add_argument("--host", metavar="NAME", help="Ansible: the variables of one host")
    commands = ("table", "refresh")
    asked.add_argument("command", nargs="?", choices=commands, help="print, or ask EC2")
    return parser


def _answer(asked: argparse.Namespace) -> None:
    path = Path(asked.inventory or HERE / "servers.json")
    if asked.command == "refresh":
        return refresh(path, force=asked.force)
    inventory = load(path)
    if asked.command == "table":
        print(table(inventory))
    elif asked.list:
        print(json.dumps(ansible_list(inventory), indent=2))
    else:
        [host] = inventory.select(hosts=[asked.host])
        print(json.dumps(ansible_vars(inventory)[host.name], indent=2))


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8
    sys.exit(main())
