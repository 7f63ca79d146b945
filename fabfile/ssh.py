"""How one host is reached: strict host keys, jump hosts, deadlines. Nobody else opens SSH."""

import contextlib
import io
import logging
import os
import random
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import paramiko
from fabric import Connection
from paramiko.ssh_exception import NoValidConnectionsError

from .env import env
from .errors import Failed, Interrupted, Stop, Unreachable
from .shell import line

logging.getLogger("paramiko").setLevel(logging.CRITICAL)

CHUNK = 32768
MARK = "FAB_RUN"


def read_ssh_config(paths, folder):
    """One paramiko.SSHConfig of all `paths` that exist; relative ones are looked for in `folder`.

    The first value found wins, within a file and from file to file (ssh_config(5)).
    """
    files = [Path(folder, Path(path).expanduser()) for path in paths]
    text = "\n".join(file.read_text() + "\nHost *" for file in files if file.is_file())
    return paramiko.SSHConfig.from_file(io.StringIO(text))


def fingerprint(key):
    """A host key as OpenSSH prints it: `ssh-ed25519 SHA256:…`."""
    return f"{key.get_name()} {key.fingerprint}"


class Addresses:
    """Connection arguments for hosts, from servers.json and ssh_config; gateways are shared."""

    def __init__(self, config):
        self.config = config
        self.gateways = {}

    def connection(self, host):
        """A fabric Connection to `host`, not opened yet, with strict host keys."""
        address = env.address(host)
        options = self.config.base_ssh_config.lookup(address)
        connection = Connection(
            address,
            user=host.user,
            port=host.port,
            config=self.config.clone(),
            gateway=self.gateway(options.get("proxyjump")),
            connect_timeout=env.fleet.connect_timeout,
        )
        connection.client = strict_client(options)
        connection.mark = f"{os.getpid()}-{time.time_ns():x}-{host.name}"
        connection.config.run.env = {MARK: connection.mark}
        return connection

    def gateway(self, name):
        """The one Connection to the jump host `name` ([user@]host[:port]), opened at once."""
        if not name or name == "none":
            return None
        if name not in self.gateways:
            options = self.config.base_ssh_config.lookup(name.rpartition("@")[2].partition(":")[0])
            gateway = Connection(name, config=self.config.clone())
            gateway.client = strict_client(options)
            open_connection(gateway)
            self.gateways[name] = gateway
        return self.gateways[name]


    def offered_key(self, host):
        """The Offer that `host` makes: its key, met over the same jump host as any connection."""
        connection = self.connection(host)
        options = self.config.base_ssh_config.lookup(env.address(host))
        port = connection.port
        name = connection.host if port == 22 else f"[{connection.host}]:{port}"
        file = known_hosts_files(options)[0]
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
    except (OSError, paramiko.SSHException, EOFError) as error:
        raise Unreachable(_reason(error)) from error


def known_hosts_files(options):
    """The Paths of the known_hosts files that ssh_config names for a host, or OpenSSH's own two."""
    named = options.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2")
    # The quotes around a path with a space are gone by now; its folder is there.
    names = [named] if Path(named).expanduser().parent.is_dir() else named.split()
    return [Path(name).expanduser() for name in names]


def strict_client(options):
    """A paramiko client that connects only to hosts whose key it knows."""
    client = paramiko.SSHClient()
    for file in [*known_hosts_files(options), Path("/etc/ssh/ssh_known_hosts")]:
        if file.is_file():
            client.load_system_host_keys(str(file))
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    return client


def open_connection(connection, attempts=4):
    """Opens it; a start that a busy sshd refused is tried again with jitter. Unreachable if not."""
    where = f"{connection.user}@{connection.host}:{connection.port}"
    for attempt in range(attempts):
        try:
            return _open(connection)
        except Stop:
            raise
        except Exception as error:
            if attempt == attempts - 1 or not _worth_another_try(error):
                raise Unreachable(f"{where}: {_reason(error)}") from error
            time.sleep(random.uniform(0.1, 0.5) * 2**attempt)


def _open(connection):
    try:
        connection.open()
    except TypeError as error:  # paramiko 5 with an empty agent socket
        raise paramiko.SSHException(str(error)) from error
    transport = connection.transport
    transport.set_keepalive(env.fleet.keepalive)
    if isinstance(transport.sock, socket.socket):
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


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
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class Remote:
    """One command running on a host over an open Connection; run() is its whole life."""

    def __init__(self, connection, command, *, stdin=None, deadline=None, cancelled=None):
        self.connection = connection
        self.command = f"{line(f'export {MARK}={{}};', connection.mark)} {command}"
        self.stdin = stdin
        self.deadline = deadline or env.fleet.deadline
        self.cancelled = cancelled or threading.Event()
        self.output = {"stdout": bytearray(), "stderr": bytearray()}
        self.woken = threading.Event()

    def run(self, *, on_output=lambda name, data: None, on_sent=lambda count: None):
        """(exit code, stdout, stderr) as int and text. Failed, Unreachable or Interrupted if none.

        A lost link, a signal or a missing exit status is a failure, never a success.
        """
        self.on_output = on_output
        try:
            channel = self.connection.transport.open_session(timeout=env.fleet.connect_timeout)
            channel.in_buffer.set_event(self.woken)
            channel.in_stderr_buffer.set_event(self.woken)
            channel.exec_command(self.command)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise Unreachable(f"the link was lost: {str(error) or 'closed'}") from error
        with channel:
            self._feed(channel, on_sent)
            self._follow(channel)
            texts = [bytes(data).decode(errors="replace") for data in self.output.values()]
            return self._status(channel), *texts

    def _feed(self, channel, on_sent):
        """Standard input, sent from a thread of its own: output is read meanwhile."""
        if self.stdin is None:
            return channel.shutdown_write()
        threading.Thread(target=self._send, args=(channel, on_sent), daemon=True).start()

    def _send(self, channel, on_sent):
        source = io.BytesIO(self.stdin) if isinstance(self.stdin, bytes) else self.stdin.open("rb")
        try:
            with source:
                while chunk := source.read(CHUNK):
                    channel.sendall(chunk)
                    on_sent(len(chunk))
            channel.shutdown_write()
        except OSError:
            pass  # the command ended without reading it all: its exit status says why

    def _follow(self, channel):
        """Reads until the command has ended; enforces the deadline, silence and Ctrl-C."""
        started = heard = time.monotonic()
        while not (channel.status_event.is_set() and self._drained(channel)):
            if self._read(channel):
                heard = time.monotonic()
                continue
            self._check(time.monotonic() - started, time.monotonic() - heard)
            if channel.closed or not channel.transport.is_active():
                break
            self.woken.wait(0.05)
        while self._read(channel):
            pass

    def _drained(self, channel):
        return channel.eof_received or channel.closed

    def _read(self, channel):
        found = False
        if channel.recv_ready():
            found = self._take("stdout", channel.recv(CHUNK))
        if channel.recv_stderr_ready():
            found = self._take("stderr", channel.recv_stderr(CHUNK)) or found
        return found

    def _take(self, name, data):
        self.output[name] += data
        self.on_output(name, data)
        return bool(data)

    def _check(self, age, silent):
        if self.cancelled.is_set():
            raise Interrupted("ended by Ctrl-C")
        if age > self.deadline:
            end_work(self.connection)
            raise Failed(f"not finished within {self.deadline} s; ended")
        if silent > env.fleet.silence:
            end_work(self.connection)
            raise Failed(f"no output for {env.fleet.silence} s; ended")

    def _status(self, channel):
        if not channel.status_event.is_set() or channel.exit_status < 0:
            lost = not channel.transport.is_active()
            kind, why = (Unreachable, "the link was lost") if lost else (Failed, "it was killed")
            raise kind(f"no exit status: {why} before the command ended")
        return channel.exit_status


def end_work(connection):
    """Ends what this run has running on the host, found by the mark in its environment: again
    until nothing is found, as what runs may start more.
    """
    kill = (
        "for turn in 1 2 3 4 5; do found=''; for e in /proc/[0-9]*/environ; do "
        f"grep -qzxF {MARK}={connection.mark} $e 2>/dev/null && p=${{e#/proc/}} && "
        'kill -TERM ${p%/environ} && found=yes; done; [ "$found" ] || break; sleep 0.2; done'
    )
    try:
        channel = connection.transport.open_session(timeout=5)
        channel.exec_command(line("sh -c {}", kill))
        channel.status_event.wait(5)
    except (paramiko.SSHException, OSError, EOFError, AttributeError):
        pass  # the link is gone: the host's own lease and deadlines end what is left


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
