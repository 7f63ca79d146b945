"""This machine as the sandbox finds it: its programs and users; and what is made on it for a
host: files, folders, keys, a database."""

import glob
import os
import pwd
import re
import secrets
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .errors import Failed, NotInstalled

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
POSTGRES = "/usr/lib/postgresql/*/bin"  # Debian keeps them off the PATH, one folder a release
SOCKET_LIMIT = 80  # of a Unix socket's folder, so that a path in it stays under 108 bytes


@dataclass(frozen=True)
class Server:
    """A program, its Debian package, and the port it listens on."""

    program: str
    package: str
    port: int


SSHD = Server("sshd", "openssh-server", 2222)
SERVERS = {  # by the role that needs it
    "nginx": Server("nginx", "nginx", 8080),
    "memcached": Server("memcached", "memcached", 11211),
    "redis": Server("redis-server", "redis-server", 6379),
    "inbox": Server("redis-server", "redis-server", 6380),
    "db": Server("postgres", "postgresql", 5432),
    "solr": Server("java", "default-jdk-headless", 8983),
}


def find_program(name):
    """The absolute path of a program, PostgreSQL's newest first; None if it is not here."""
    newest = sorted(glob.glob(POSTGRES), key=lambda path: int(re.sub(r"\D", "", path) or 0))
    folders = [*reversed(newest), os.environ.get("PATH", ""), SYSTEM_PATH]
    return shutil.which(name, path=":".join(folders))


def check_programs(roles):
    """NotInstalled, naming all that hosts with these roles need and this machine lacks."""
    wanted = [SSHD, Server("ssh-keygen", "openssh-client", 0)]
    wanted += [server for role, server in SERVERS.items() if role in roles]
    check_there("the sandbox", wanted)


def check_there(who, wanted):
    """NotInstalled, naming all of the `wanted` programs that this machine lacks."""
    missing = [server for server in wanted if not find_program(server.program)]
    if missing:
        names = ", ".join(server.program for server in missing)
        packages = " ".join(dict.fromkeys(server.package for server in missing))
        raise NotInstalled(f"{who} needs {names}: sudo apt-get install -y {packages}")


def servers_user():
    """Who runs the servers: this user; for root, whom PostgreSQL refuses, an unprivileged one."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


def login():
    """Who logs in to the hosts of the sandbox: who starts it."""
    return pwd.getpwuid(os.geteuid()).pw_name


def write(path, text, mode=0o644):
    """Make `text` the content of a file, all or nothing. Whether that changed it."""
    if path.exists() and path.read_text() == text:
        return False
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    return True


def make_folder(path, *, fits, elsewhere):
    """The folder `path`; where that does not fit, a link to one of its own under `elsewhere`.
    The link comes first, so that the folder is never lost track of."""
    if not fits and not path.is_symlink():
        path.symlink_to(f"{elsewhere}/sandbox-{secrets.token_hex(6)}")
    resolved(path).mkdir(exist_ok=True)


def resolved(path):
    """Where make_folder() made the folder `path`."""
    return Path(os.readlink(path)) if path.is_symlink() else path


def remove_folder(path):
    """Remove what make_folder() made, if it did."""
    if path.is_symlink() and resolved(path).name.startswith("sandbox-"):
        shutil.rmtree(resolved(path), ignore_errors=True)
    elif path.exists():
        shutil.rmtree(path)


def make_run_folder(path):
    """A folder for Unix sockets, whose names may not be long."""
    runtime = os.environ.get("XDG_RUNTIME_DIR") or "/tmp"
    make_folder(path, fits=len(os.fsencode(path)) < SOCKET_LIMIT, elsewhere=runtime)


def make_data_folder(path):
    """A folder that belongs to the servers' user, where that user can get to."""
    owner = servers_user()
    open_to_all = all(parent.stat().st_mode & 0o001 for parent in path.parents)
    make_folder(path, fits=owner.pw_uid == os.geteuid() or open_to_all, elsewhere="/var/tmp")
    resolved(path).chmod(0o700)
    os.chown(resolved(path), owner.pw_uid, owner.pw_gid)


def make_key(path, comment):
    """An SSH key pair at `path` and `path`.pub, unless it is there."""
    if path.exists():
        return
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    run_program("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", fresh)
    fresh.with_name(f"{fresh.name}.pub").rename(f"{path}.pub")
    fresh.rename(path)


def make_database(folder, name, password):
    """A PostgreSQL cluster with a role and a database called `name`, unless it is there."""
    if folder.exists():
        return
    fresh = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)  # of a run that was killed
    user = servers_user().pw_name
    run_program(
        *("initdb", "-D", fresh, "-U", user, "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"),
        *("--auth-local=peer", "--auth-host=scram-sha-256"),
        user=user,
    )
    escaped = password.replace("'", "''")
    statements = f"""CREATE ROLE {name} LOGIN PASSWORD '{escaped}';
CREATE DATABASE {name} OWNER {name};
"""
    run_program("postgres", "--single", "-F", "-D", fresh, "postgres", user=user, stdin=statements)
    fresh.rename(folder)


def run_program(name, *arguments, user=None, stdin=""):
    """Run a program to its end. Failed with its last words if it fails."""
    as_user = {}
    if user and user != login():
        as_user = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    command = [find_program(name), *arguments]
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, cwd="/", check=False, **as_user
    )
    if done.returncode != 0:
        raise Failed(f"{name} failed: {last_lines(done.stderr)}")


def last_lines(text, count=8):
    return "\n".join(text.splitlines()[-count:])


def tail(path):
    """The last lines of a log; '(empty)' if there is nothing in it."""
    try:
        return last_lines(path.read_text(errors="replace")) or "(empty)"
    except OSError:
        return "(empty)"


def answers(address, port):
    """Whether somebody accepts connections there."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True
