"""`env`, as in Fabric 1: the settings of fabric.yml, typed, and what this run knows.

A team may set attributes of its own on it; later tasks of the same run find them.
"""

from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, get_args, get_origin, get_type_hints

import yaml

from .errors import Usage

ROOT = Path(__file__).resolve().parent.parent
# Nobody compares or prints them, and each `fab` would wait for the code of that to be made.
section = partial(dataclass, frozen=True, kw_only=True, eq=False, repr=False)


@section
class Deploy:
    """`deploy:` what a release is made of and where it lives on a host."""

    application: str
    deploy_to: str
    repository: str = "."
    subfolder: str = ""
    revision: str = "HEAD"
    build: tuple[str, ...] = ()
    carry: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    requirements: str = ""
    python: str = "python3"
    wheels: Literal["fetch", "push"] = "fetch"
    shared_folders: tuple[str, ...] = ()
    shared_files: tuple[str, ...] = ()
    migrate: str = ""
    keep: int = 5
    lease: int = 60


@section
class Unit:
    """One entry of `units:` a service whose processes run from the release."""

    roles: tuple[str, ...]
    processes: int = 1
    trial: str = ""
    health: str = ""
    release: str = ""
    ask: str = ""
    drain: str = ""

    def on(self, host, address):
        """The unit as it is on one host: {address} and {name} filled in, not {socket}."""
        def filled(text):
            return text.replace("{address}", address).replace("{name}", host.name)

        texts = {key: value for key, value in vars(self).items() if isinstance(value, str)}
        return replace(self, **{key: filled(text) for key, text in texts.items()})


@section
class Services:
    """`services:` who starts and stops the units on a host."""

    manager: Literal["supervisor", "systemd"] = "supervisor"
    folder: str = "supervisor/conf.d"
    sudo: bool = False
    deadline: int = 120
    drain: int = 90


@section
class FleetSettings:
    """`fleet:` how hosts are reached."""

    connect_with: Literal["private_dns", "public_dns"] = "private_dns"
    ssh_config: tuple[str, ...] = ("~/.ssh/config",)
    pool_size: int = 32
    connect_timeout: int = 10
    deadline: int = 600
    silence: int = 300
    keepalive: int = 15


@section
class Prove:
    """`prove:` how long a release may take to answer."""

    trial: int = 30
    health: int = 30
    watch: int = 0
    errors: int = 5


@section
class Nginx:
    """`nginx:` the configuration rendered from templates/nginx."""

    deploy_to: str = "nginx"
    port: int = 8080
    upstream_port: int = 8000
    unit: str = "nginx"
    command: str = "nginx"
    access_log: str = "logs/nginx-access.log"


@section
class Solr:
    """`solr:` the cores rendered from templates/solr, and where a Solr has them."""

    deploy_to: str = "solr"
    home: str = "solr-home"
    port: int = 8983
    poll: str = "00:00:05"
    heap: str = "256m"


@section
class Cache:
    """`cache:` memcached as the operator reaches it."""

    port: int = 11211
    timeout: int = 3


@section
class Celery:
    """`celery:` the application and the unit of the workers."""

    app: str = ""
    unit: str = "celery"
    beside: tuple[str, ...] = ()
    snapshots: str = ""


@section
class Refresh:
    """`inventory:` read by `inventory.py refresh`, checked here too."""

    region: str = ""
    profile: str = ""
    filters: dict = field(default_factory=dict)
    role_tag: str = "Roles"
    name_tag: str = "Name"


SECTIONS = {
    "deploy": Deploy,
    "services": Services,
    "fleet": FleetSettings,
    "prove": Prove,
    "nginx": Nginx,
    "solr": Solr,
    "cache": Cache,
    "celery": Celery,
    "inventory": Refresh,
}


def readable(path):
    """Usage, with the place and the remedy, if a YAML file of settings can't be read as one."""
    if path is None:
        return
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise Usage(f"{path}: {error.strerror}; -f FILE takes a file like fabric.yml") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or error
        raise Usage(f"{path}: {place}not YAML: {problem}") from error
    if not isinstance(found, dict):
        raise Usage(f"{path}: not a mapping of sections, each a name and a colon")
    for name, values in found.items():
        if (name in SECTIONS or name == "units") and not isinstance(values, dict):
            raise Usage(f"{path}: {name} must be a mapping of settings, not {values!r}")


def typed(kind, values, place):
    """`values`, read from YAML, as the dataclass `kind`. Usage, with its place, where it is not."""
    if not isinstance(values, dict):
        raise Usage(f"fabric.yml: {place} must be a mapping of settings, not {values!r}")
    known = {item.name: item for item in fields(kind)}
    for key in values:
        if key not in known:
            raise Usage(f"fabric.yml: unknown setting {place}.{key}{nearest(key, known)}")
    for name, item in known.items():
        required = item.default is MISSING and item.default_factory is MISSING
        if required and name not in values:
            raise Usage(f"fabric.yml: {place}.{name} is missing")
    hints = get_type_hints(kind)
    return kind(**{
        key: checked(hints[key], value, f"{place}.{key}", least=0 if known[key].default == 0 else 1)
        for key, value in values.items()
    })


def checked(hint, value, place, *, least=1):
    """`value` as the annotated type: lists become tuples; anything that does not fit is refused."""
    if get_origin(hint) is tuple:
        if isinstance(value, str | dict) or not hasattr(value, "__iter__"):
            raise Usage(f"fabric.yml: {place} must be a list, not {value!r}")
        return tuple(checked(get_args(hint)[0], entry, place) for entry in value)
    if wanted := missed(hint, value, least):
        raise Usage(f"fabric.yml: {place} must be {wanted}, not {value!r}")
    return value


def missed(hint, value, least):
    """What `value` has to be instead, in words; '' if it is as annotated."""
    if get_origin(hint) is Literal:
        return "" if value in get_args(hint) else " or ".join(get_args(hint))
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        return _words[hint]
    return f"{least} or more" if hint is int and value < least else ""


_words = {str: "text", int: "a whole number", bool: "true or false", dict: "a mapping"}


def defaults():
    """section → {setting: its default}, of those that one word of the environment can set."""
    return {
        name: {item.name: item.default for item in fields(kind)
               if isinstance(item.default, str | int)}
        for name, kind in SECTIONS.items()
    }


def nearest(word, known):
    """'; did you mean …?' for a misspelt word, or the known words where none is near."""
    close = get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(sorted(known))}"


def instant(text=None):
    """A deploy date, 14 digits of UTC: now, or `text` if it is one. Usage if it is not."""
    if text is None:
        return datetime.now(UTC).strftime("%Y%m%d%H%M%S")
    try:
        datetime.strptime(text, "%Y%m%d%H%M%S")
    except ValueError:
        raise Usage(f"{text!r} is not a deploy date: 14 digits, e.g. {instant()}") from None
    return text


class Env(SimpleNamespace):
    """What the run knows; see load(). `env.deploy_date` names the release on every host."""

    def load(self, settings, *, inventory, deploy_date=None, dry=False, batch=None):
        """Takes fabric.yml's own sections (a mapping), the inventory and the flags of the run."""
        for name in settings:
            if name not in (*SECTIONS, "units"):
                known = (*SECTIONS, "units")
                raise Usage(f"fabric.yml: unknown section {name}{nearest(name, known)}")
        for name, kind in SECTIONS.items():
            if name != "inventory":
                setattr(self, name, typed(kind, settings.get(name, {}), name))
        typed(Refresh, settings.get("inventory", {}), "inventory")
        units = settings.get("units", {})
        if not isinstance(units, dict):
            raise Usage(f"fabric.yml: units must be a mapping of units, not {units!r}")
        self.units = {name: typed(Unit, unit, f"units.{name}") for name, unit in units.items()}
        self.inventory = inventory
        self.deploy_date = instant(deploy_date)
        self.dry = dry
        self.batch = batch

    def address(self, host):
        """The DNS name or address by which `host` is reached (`fleet: connect_with:`)."""
        return getattr(host, self.fleet.connect_with) or host.private_dns

    def unit_on(self, name, host):
        """A unit as it is on one host."""
        return self.units[name].on(host, self.address(host))

    def units_of(self, host):
        """The names of the units that run on `host`, in fabric.yml's order."""
        return [name for name, unit in self.units.items() if set(unit.roles) & set(host.roles)]


env = Env()
