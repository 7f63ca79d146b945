"""promote_solr: when the master is dead, one of its slaves takes its place. The one task that is
made of others: nginx and Solr are deployed in an order in which writes never have two masters."""

import difflib
from dataclasses import replace

import inventory

from . import cores
from .env import env, instant
from .errors import Refused, Stop
from .fleet import once
from .nginx import deploy_nginx
from .solr import deploy_solr
from .solr_hosts import ask


@once(roles=["solr"], help={"to": "Which slave (default: the most advanced one)."})
def promote_solr(fleet, to=""):
    """Make the most advanced slave, or --to HOST, the master, once that is dead."""
    old = env.inventory
    master = cores.master(old.hosts)
    living = survivors(fleet.only(host for host in old.hosts if "solr" in host.roles), master)
    chosen = choose(living, to)
    fleet.say(f"promote    {chosen.name} in place of {master.name}")
    take(fleet, with_hosts(old, closed(master)))
    deploy_nginx.body(nginx_hosts(fleet))  # from now on nobody gets a write
    new = with_hosts(old, demoted(master), promoted(chosen))
    env.inventory = new
    try:
        deploy_solr.body(fleet.only(new.find(host.name) for host in living))
    except Stop as stop:
        raise type(stop)(
            f"{stop}\nnginx refuses writes until promote_solr succeeds; or {master.name} is back, "
            "its solr_down is removed, and nginx deployed") from stop
    take(fleet, new)
    env.deploy_date = instant()  # a second release of nginx's configuration
    deploy_nginx.body(nginx_hosts(fleet))
    fleet.say(f"when {master.name} is back: fab deploy_solr; then remove its solr_down from "
              f"{new.path.name}, and fab deploy_nginx")


def survivors(fleet, master):
    """slave → its cores, of those that answer. Refused if anybody still reaches the master."""
    found = ask(fleet, "status", step="ask")
    if env.dry:
        return {host: {} for host in fleet.having(cores.SLAVE).hosts}
    if found[master].ok:
        raise Refused(f"{master.name} answers: it is not dead. Nothing was changed")
    living = {host: o.value["cores"] for host, o in found.items() if o.ok}
    for host, has in living.items():
        for core, facts in has.items():
            if facts.get("polling") and facts["error"] != "invalid_leader":
                raise Refused(f"{host.name}: core {core} still reaches {master.name}. "
                              "Nothing was changed")
    return living


def choose(living, name):
    """The slave that lacks nothing another one has. Refused if the one named, or any, does."""
    named = [host for host in living if name in ("", *host.names)]
    if not named:
        raise Refused(f"{name or 'no slave'}: not a slave that answers; there is "
                      f"{', '.join(host.name for host in living) or 'none'}")
    chosen = max(named, key=lambda host: sorted(versions(living[host]).items()))
    for other, has in living.items():
        for core, version in versions(has).items():
            if version > versions(living[chosen]).get(core, 0):
                raise Refused(f"{chosen.name}: core {core} lacks what {other.name} has. "
                              "Nothing was changed")
    return chosen


def versions(has):
    """core → the version of its index."""
    return {core: facts.get("version", 0) for core, facts in has.items()}


def closed(host):
    """The host, with nothing sent to it by nginx."""
    return replace(host, vars={**host.vars, "solr_down": True})


def demoted(master):
    roles = tuple(cores.SLAVE if role == cores.MASTER else role for role in master.roles)
    return replace(closed(master), roles=roles)


def promoted(slave):
    roles = tuple(cores.MASTER if role == cores.SLAVE else role for role in slave.roles)
    return replace(slave, roles=roles)


def with_hosts(old, *changed):
    """An inventory in which some hosts have changed."""
    by_name = {host.name: host for host in changed}
    return replace(old, hosts=tuple(by_name.get(host.name, host) for host in old.hosts))


def take(fleet, new):
    """The inventory from now on, for this run and in its file; what changes is said."""
    before, after = (inventory.dump(one).splitlines() for one in (inventory.load(new.path), new))
    for text in difflib.unified_diff(before, after, new.path.name, new.path.name, "", "", 0, ""):
        fleet.say(text)
    env.inventory = new
    if not env.dry:
        inventory.save(new)


def nginx_hosts(fleet):
    """The same run with the nginx hosts."""
    return fleet.only(host for host in env.inventory.hosts if "nginx" in host.roles)
