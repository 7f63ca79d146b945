"""How one host is reached: strict host keys, jump hosts, patience. Nobody else opens SSH."""

import contextlib
import io
import itertools
import logging
import os
import random
import socket
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import paramiko
from fabric import Connection
from paramiko.ssh_exception import NoValidConnectionsError

from .env import env
from .errors import Stop, Unreachable, Usage

logging.getLogger("paramiko").setLevel(logging.CRITICAL)

SYSTEM_WIDE = "/etc/ssh/ssh_config"
Unparsable = paramiko.ConfigParseError
LOST = (paramiko.SSHException, OSError, EOFError)  # what an open link fails with


def read_ssh_config(paths, folder):
    """One paramiko.SSHConfig of all `paths` that exist; relative ones are looked for in `folder`.

    The first value found wins, within a file and from file to file (ssh_config(5)). Usage for a
    line that means nothing.
    """
    config = paramiko.SSHConfig()
    for file in (Path(folder, Path(path).expanduser()) for path in paths):
        if file.is_file():
            try:
                config.parse(io.StringIO(file.read_text(errors="replace")))
            except Unparsable as error:
                raise Usage(f"{file}: {error}") from error
    config._config = Parsed(config._config)
    return config


class Parsed(list):
    """What ssh_config says, read once. Fabric makes a copy of its settings for each host, and reads
    its files again each time: the copies share it, and it stays as it is.
    """

    def __deepcopy__(self, memo):
        return self

    def append(self, stanza):
        """Nothing is added."""


def fingerprint(key):
    """A host key as OpenSSH prints it: `ssh-ed25519 SHA256:…`."""
    return f"{key.get_name()} {key.fingerprint}"


class Addresses:
    """Connection arguments for hosts, from servers.json and ssh_config; jump hosts are shared."""

    def __init__(self, config):
        self.config = config
        self.gateways = {}

    def connection(self, host):
        """A fabric Connection to `host`, not opened yet, with strict host keys."""
        return self._made(env.address(host), user=host.user, port=host.port)

    def _made(self, address, **known):
        """A Connection that ssh_config was asked about once. `gateway`: the hop before, if any."""
        known = {"gateway": False, "connect_timeout": env.fleet.connect_timeout} | known
        connection = Connection(address, config=self.config.clone(), **known)
        connection.client = strict_client(connection.ssh_config)
        patience = dict.fromkeys(("banner_timeout", "auth_timeout"), env.fleet.connect_timeout)
        connection.connect_kwargs = {**patience, **connection.connect_kwargs}
        if connection.gateway is False:
            connection.gateway = self.way_to(connection)
        return connection

    def way_to(self, connection):
        """What ssh_config has between here and a host: a jump host, a ProxyCommand, or nothing."""
        hops = connection.ssh_config.get("proxyjump", "none")
        names = [hop.rpartition("@")[2].partition(":")[0] for hop in hops.split(",")]
        if hops == "none" or connection.original_host in names:  # `Host *` means others
            return connection.ssh_config.get("proxycommand")
        return self.gateway(hops)

    def gateway(self, hops):
        """The one Connection to the last of `hops`, [user@]host[:port],…, opened at once; one
        that could not be reached is not tried again in this run.
        """
        if hops not in self.gateways:
            self.gateways[hops] = self._opened(hops)
        if isinstance(self.gateways[hops], Stop):
            raise self.gateways[hops]
        return self.gateways[hops]

    def _opened(self, hops):
        before, _, name = hops.rpartition(",")
        try:
            known = {"gateway": self.gateway(before)} if before else {}
            connection = self._made(name, **known)
            open_connection(connection)
            return connection
        except Unreachable as error:
            return Unreachable(f"jump host {error}")

    def close(self):
        """Closes the jump hosts."""
        for connection in self.gateways.values():
            if not isinstance(connection, Stop):
                connection.close()

    def offered_key(self, host):
        """The Offer that `host` makes: its key, met over the same jump host as any connection."""
        connection = self.connection(host)
        port = connection.port
        name = connection.host if port == 22 else f"[{connection.host}]:{port}"
        file = known_hosts_files(connection.ssh_config)[0]
        key = remote_key(connection)
        return Offer(name, key, connection.client._system_host_keys.check(name, key), file)


def remote_key(connection):
    """The host key that is shown before any login. Unreachable if none is."""
    try:
        gateway = connection.gateway
        sock = connection.open_gateway() if gateway else socket.create_connection(
            (connection.host, connection.port), timeout=env.fleet.connect_timeout)
        transport = paramiko.Transport(sock)
        with contextlib.closing(transport):
            transport.start_client(timeout=env.fleet.connect_timeout)
            return transport.get_remote_server_key()
    except LOST as error:
        raise Unreachable(_reason(error)) from error


def known_hosts_files(options):
    """The Paths of the known_hosts files that ssh_config names for a host, or OpenSSH's own two."""
    named = options.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2")
    # The quotes around a path with a space are gone by now; its folder is there.
    names = [named] if Path(named).expanduser().parent.is_dir() else named.split()
    return [Path(name).expanduser() for name in names]


def strict_client(options):
    """A paramiko client that connects only to hosts whose key it knows."""
    files = [*known_hosts_files(options), Path("/etc/ssh/ssh_known_hosts")]
    client = paramiko.SSHClient()
    client._system_host_keys = host_keys(
        tuple((file, file.stat().st_mtime_ns) for file in files if file.is_file()))
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    return client


@lru_cache
def host_keys(files):
    """The HostKeys of known_hosts files, (path, when it was changed) each: read once, as they may
    have as many lines as there are hosts.
    """
    keys = paramiko.HostKeys()
    for path, _ in files:
        keys.load(str(path))
    return keys


def open_connection(connection):
    """Opens it; a start that a busy sshd refused is tried again with jitter. Unreachable if not."""
    where = f"{connection.user}@{connection.host}:{connection.port}"
    until = time.monotonic() + env.fleet.connect_timeout
    for attempt in itertools.count():
        try:
            return _open(connection)
        except Stop:
            raise
        except Exception as error:
            if time.monotonic() > until or not _worth_another_try(error):
                raise Unreachable(f"{where}: {_reason(error)}") from error
            time.sleep(random.uniform(0.1, 0.5) * 2 ** min(attempt, 2))


def _open(connection):
    try:
        connection.open()
    except TypeError as error:  # paramiko 5 with an empty agent socket
        raise paramiko.SSHException(str(error)) from error
    transport = connection.transport
    transport.channel_timeout = env.fleet.connect_timeout
    transport.set_keepalive(env.fleet.keepalive)
    if isinstance(transport.sock, socket.socket):
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # keepalives that nobody acknowledges end the link
            patience = 3000 * env.fleet.keepalive
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)


def _worth_another_try(error):
    """Whether the far sshd only was too busy: it closed before or during its first words."""
    text = str(error)
    return isinstance(error, EOFError | ConnectionResetError) or "banner" in text or "EOF" in text


def _reason(error):
    """One line that says why a connection was not made and what to do."""
    if isinstance(error, paramiko.BadHostKeyException):
        return (
            f"the host key has CHANGED: known {fingerprint(error.expected_key)}, now "
            f"{fingerprint(error.key)}. If the host was rebuilt: `fab -H {error.hostname} "
            "trust_hosts`; if not, somebody may be in between"
        )
    if isinstance(error, paramiko.AuthenticationException):
        return "login refused: no key of the agent, ~/.ssh or ssh_config was accepted"
    if isinstance(error, NoValidConnectionsError):
        error = next(iter(error.errors.values()))
    if "not found in known_hosts" in str(error):
        return "its host key is not known yet: `fab trust_hosts` shows and learns it"
    if isinstance(error, socket.gaierror):
        return f"no such address ({error.strerror})"
    if isinstance(error, TimeoutError):
        return f"no answer within {env.fleet.connect_timeout} s"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__


@dataclass(frozen=True)
class Offer:
    """The key that a host offers, and where one that is trusted would be written."""

    name: str  # as known_hosts has it: address, or [address]:port
    key: paramiko.PKey
    known: bool
    file: Path


def learn(offer):
    """Writes an offered key to its known_hosts file, in place of older ones of the same name."""
    keys = paramiko.HostKeys(str(offer.file) if offer.file.is_file() else None)
    keys.pop(offer.name, None)
    keys.add(offer.name, offer.key.get_name(), offer.key)
    offer.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    scratch = offer.file.with_name(f"{offer.file.name}.{os.getpid()}")
    keys.save(str(scratch))
    with scratch.open() as written:
        os.fsync(written.fileno())
    scratch.replace(offer.file)
