"""What the suites of outside clients share: the server under test, its certificate, caches, tallies.

A suite gets the server as `--server BINARY` (the program, started as its users start it) or, to try the
suite itself against another implementation, as one or more `--command TEMPLATE`, in which `{port}`,
`{tls_port}`, `{cert}`, `{key}`, `{config}` and `{compression}` (`true` or `false`) are filled in.

Only processes started here are ended here, by their own id. Every wait has a deadline.
"""
import hashlib
import os
import pathlib
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
BINARY = "{binary} serve --config {config} --listen 127.0.0.1:{port} " \
         "--listen-tls 127.0.0.1:{tls_port} --tls-cert {cert} --tls-key {key} --reactors 2"
START_SECONDS_MAX = 30
# More than the program's own drain deadline needs with a handful of well-behaved clients.
STOP_SECONDS_MAX = 30


class Unusable(Exception):
    """The suite could not run at all: one line that says what is missing or did not start."""


def add_server_arguments(parser):
    """The arguments by which every suite is told what to test."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    parser.add_argument("--server", default=str(target / "release" / "tidegate"), metavar="BINARY",
                        help="the program under test (default: the release build)")
    parser.add_argument("--command", action="append", default=[], metavar="TEMPLATE",
                        help="a server to test instead; repeat it where plain and TLS need a process each")


def templates(arguments):
    """The command lines to start, as lists of words with placeholders."""
    if arguments.command:
        return [shlex.split(command) for command in arguments.command]
    binary = shutil.which(arguments.server)
    if not binary:
        raise Unusable(f"no program at {arguments.server}; build it first (cargo build --release)")
    return [[word.replace("{binary}", binary) for word in BINARY.split()]]


def cache():
    """A folder that outlives a run, for virtual environments."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = pathlib.Path(base) / "tidegate-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def certificate(folder):
    """A self-signed certificate for localhost and 127.0.0.1: (certificate path, key path)."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-keyout", key, "-out", cert, "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        capture_output=True, text=True, timeout=60)
    if made.returncode:
        raise Unusable(f"openssl made no certificate: {made.stderr.strip()[-200:]}")
    return cert, key


# Below the range that kernels choose from for outgoing connections, which suites make many of.
PORTS = range(15_000, 32_768)
_given = set()
_giving = threading.Lock()


def free_ports(count):
    """Ports nobody has now. They are released before use, as the server must bind them itself."""
    ports = []
    with _giving:
        while len(ports) < count:
            port = random.choice(PORTS)
            if port in _given:
                continue
            with socket.socket() as one:
                try:
                    one.bind(("127.0.0.1", port))
                except OSError:
                    continue
            _given.add(port)
            ports.append(port)
    return ports


def current(stamp, *files):
    """Whether `stamp` was written by `mark` for these very files."""
    return stamp.exists() and stamp.read_text() == digest(*files)


def mark(stamp, *files):
    """Remembers in `stamp` what was installed."""
    stamp.write_text(digest(*files))


def digest(*files):
    """One hash over the content of several files."""
    state = hashlib.sha256()
    for file in files:
        state.update(pathlib.Path(file).read_bytes())
    return state.hexdigest()


def install(command, **options):
    """Runs an installer quietly; its last words become the error."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=600, check=False, **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unusable(f"{command[0]}: {error}") from error
    if done.returncode:
        raise Unusable(f"{' '.join(map(str, command))} failed:\n{done.stdout[-2000:]}")


class Server:
    """The server under test, on loopback ports of its own; a context manager that never leaves it running."""

    def __init__(self, commands, folder, config, compression):
        self.plain_port, self.tls_port = free_ports(2)
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "server.log"
        self.cert, key = certificate(folder)
        config_file = folder / "tidegate.toml"
        config_file.write_text(config)
        values = {"port": self.plain_port, "tls_port": self.tls_port, "cert": self.cert, "key": key,
                  "config": config_file, "compression": str(compression).lower()}
        self.commands = []
        for words in commands:
            for name, value in values.items():
                words = [word.replace("{" + name + "}", str(value)) for word in words]
            self.commands.append(words)
        self.serves_tls = ["{tls_port}" in " ".join(words) for words in commands]
        self.processes = []

    def __enter__(self):
        # The program reads TIDEGATE_… over its file, so what the caller has set must not leak in.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TIDEGATE_")}
        try:
            with open(self.log, "wb") as log:
                for words in self.commands:
                    self.processes.append(subprocess.Popen(
                        words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment))
            deadline = time.monotonic() + START_SECONDS_MAX
            for port in (self.plain_port, self.tls_port):
                self._await_port(port, deadline)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def _await_port(self, port, deadline):
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                pass
            if any(process.poll() is not None for process in self.processes):
                raise Unusable(f"the server ended at once:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise Unusable(f"nothing listens on port {port} after {START_SECONDS_MAX} s:\n{self.log_tail()}")
            time.sleep(0.02)

    def process(self, tls):
        """The process that serves plain or TLS connections; one process may serve both."""
        if not tls:
            return self.processes[0]
        return self.processes[self.serves_tls.index(True)]

    def url(self, tls):
        """Scheme, address and port, without a path."""
        return f"wss://127.0.0.1:{self.tls_port}" if tls else f"ws://127.0.0.1:{self.plain_port}"

    def stop(self):
        """Sends SIGTERM where it is still needed; returns what was wrong with the ends, or None."""
        ended = [process for process in self.processes if process.poll() is not None]
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        return ("it ended before SIGTERM; " if ended else "") + self.exit_problem(self.processes) or None

    @staticmethod
    def exit_problem(processes):
        """Waits for exit code 0 of each; what was wrong, or an empty string."""
        deadline = time.monotonic() + STOP_SECONDS_MAX
        for process in processes:
            try:
                code = process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                return f"still running {STOP_SECONDS_MAX} s after SIGTERM"
            if code:
                return f"exit code {code} instead of 0 after SIGTERM"
        return ""

    def log_tail(self):
        """The end of what the server printed, for a failure's report."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""


class Tally:
    """Counts checks, prints those that failed, and writes the closing line."""

    def __init__(self):
        self.passed = 0
        self.failures = []

    def add(self, name, problem=None):
        """Counts one check; `problem` is why it failed."""
        if problem:
            self.failures.append(name)
            print(f"FAILED {name}: {problem}", flush=True)
        else:
            self.passed += 1

    def close(self):
        """Prints the closing line and returns the exit code: 1 where anything failed or nothing ran."""
        print(f"{self.passed} passed, {len(self.failures)} failed", flush=True)
        return 0 if self.passed and not self.failures else 1


def run(main):
    """Runs a suite's `main`; what makes it unusable is one message and exit code 2."""
    try:
        sys.exit(main())
    except Unusable as error:
        print(f"cannot run: {error}", file=sys.stderr)
        sys.exit(2)
