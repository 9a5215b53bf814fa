#!/usr/bin/env python3
"""Real clients against the server: Node's `ws`, headless Chromium, Python's `websockets`, the browser client of the
system that tidegate replaces, the dashboard, Centrifugo's `cent` of backends, and the README's own lines.

Each of the first three runs over plain TCP and TLS, against a server with and without compression, and itself with and
without it where it has the choice; the fourth runs against `examples/notifications.toml`. Each time with a server of
its own, which its last check ends by SIGTERM; the README's lines start theirs themselves.

Bounded in time: what has not run after eight minutes counts as failed.

Exit codes: 0 all passed · 1 some check failed · 2 the suite could not run.
"""
import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import harness  # noqa: E402

# The limit is left at its default, so that the default is what is tested.
CONFIG = "[websocket]\ncompression = {compression}\n"
LIMIT = 64 * 1024
# The original's routes as the example has them, and some for a backend that publishes over a socket.
SECRET = "0123456789abcdef0123456789abcdef"
EXAMPLE = HERE.parent.parent / "examples" / "notifications.toml"
PUBLISHERS = """
[[route]]
path = "{path}"
kind = "channels"
[[route.relay]]
when = "any"
to = ["{to}"]
"""
# The dashboard's server: many connections from one address, an alert that a few of them set off.
ADMIN_TOKEN = "administrators-token-of-the-dashboards-tests"
WATCHED = """
[monitor]
listen = ["127.0.0.1:{admin}"]
token = "{admin_token}"
tick_interval = "100ms"
requests_per_second = 200
[token]
secret = "{secret}"
[limits]
address_connections_max = 1000
address_attempts = "off"
user_connections_max = "off"
[[alert]]
name = "many_here"
value = "tidegate_connections_open"
threshold = 10
for = "0s"
severity = "critical"
"""
# A backend's server: the API, and channels that keep what is said and who is there.
API_KEY = "key-of-the-backend-in-the-clients-tests"
BACKEND = """
[monitor]
listen = []
[api]
listen = ["127.0.0.1:{admin}"]
key = "{key}"
[token]
secret = "{secret}"
user_claim = "user_id"
required = false
[[channel]]
prefix = "kept:"
history_size = 5
presence = true
[[route]]
path = "/ws/{{room}}/"
kind = "channels"
token = "required"
channels = ["kept:{{room}}"]
"""
CLIENT_SECONDS_MAX = 120
ALL_SECONDS_MAX = 480
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclasses.dataclass(frozen=True)
class Session:
    """One client program against one server of its own."""
    client: str
    tls: bool
    compression: bool
    deflate: bool

    def __str__(self):
        return (f"{self.client} over {'wss' if self.tls else 'ws'}, "
                f"server {'with' if self.compression else 'without'} compression, "
                f"client {'with' if self.deflate else 'without'}")


def sessions(clients):
    """Every combination; a browser always offers compression."""
    for client in clients:
        if client in ("original", "dashboard", "cent", "readme"):
            yield Session(client, tls=False, compression=False, deflate=True)
            continue
        for tls in (False, True):
            for compression in (False, True):
                for deflate in ((True,) if client == "chromium" else (False, True)):
                    yield Session(client, tls, compression, deflate)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_server_arguments(parser)
    parser.add_argument("--clients", default="node,chromium,python,original,dashboard,cent,readme", help="which clients (default: all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="clients at a time")
    parser.add_argument("--verbose", action="store_true", help="print the checks that passed, too")
    arguments = parser.parse_args()
    commands = harness.templates(arguments)
    programs = install(arguments.clients.split(","))
    tally = harness.Tally()
    deadline = time.monotonic() + ALL_SECONDS_MAX
    with tempfile.TemporaryDirectory(prefix="tidegate-clients-") as scratch, \
            concurrent.futures.ThreadPoolExecutor(max(1, arguments.jobs)) as pool:
        work = {}
        for number, session in enumerate(sessions(programs)):
            folder = pathlib.Path(scratch) / str(number)
            work[pool.submit(run, session, programs[session.client], commands, folder, deadline)] = session
        for done in concurrent.futures.as_completed(work):
            session = work[done]
            checks, seconds = done.result()
            print(f"{session}: {len(checks)} checks in {seconds:.1f} s", flush=True)
            for name, problem in checks:
                if arguments.verbose and not problem:
                    print(f"  ok {name}")
                tally.add(f"{session}: {name}", problem)
    return tally.close()


def install(names):
    """Installs what the clients need, once; returns client → its command line."""
    makers = {"node": node, "chromium": chromium, "python": python, "original": original,
              "dashboard": dashboard, "cent": cent, "readme": readme}
    unknown = set(names) - set(makers)
    if unknown:
        raise harness.Unusable(f"no such clients: {', '.join(sorted(unknown))}")
    return {name: makers[name]() for name in names}


def node():
    """Node's `ws`, by the lock file."""
    return [node_with_packages(), HERE / "node-ws.mjs"]


def chromium():
    """Chromium under playwright-core, which brings no browser of its own."""
    browser()
    return [node_with_packages(), HERE / "chromium.mjs"]


def original():
    """The original's browser client, in Chromium too."""
    browser()
    return [node_with_packages(), HERE / "original.mjs"]


def dashboard():
    """The dashboard, in Chromium."""
    browser()
    return [node_with_packages(), HERE / "dashboard.mjs"]


def readme():
    """The README's lines, with its page in Chromium."""
    browser()
    return [node_with_packages(), HERE / "readme.mjs"]


def node_with_packages():
    program = shutil.which("node")
    if not program:
        raise harness.Unusable("no node on PATH (Node.js 20 or newer)")
    stamp, files = HERE / "node_modules" / ".installed", [HERE / "package.json", HERE / "package-lock.json"]
    if not harness.current(stamp, *files):
        harness.install(["npm", "ci", "--no-audit", "--no-fund"], cwd=HERE)
        harness.mark(stamp, *files)
    return program


def python():
    """Python's `websockets`."""
    return [python_with(HERE / "requirements.txt", "websockets"), HERE / "python_websockets.py"]


def cent():
    """Centrifugo's client for backends, as it is published."""
    return [python_with(HERE / "requirements-cent.txt", "cent"), HERE / "cent_api.py"]


def python_with(requirements, name):
    """A Python in an environment of its own, with what is required."""
    folder = harness.cache() / name
    stamp = folder / "installed"
    if not harness.current(stamp, requirements):
        shutil.rmtree(folder, ignore_errors=True)
        harness.install([sys.executable, "-m", "venv", folder])
        harness.install([folder / "bin" / "pip", "install", "-q", "-r", requirements])
        harness.mark(stamp, requirements)
    return folder / "bin" / "python"


def browser():
    """The browser's path: $CHROMIUM, or one of the usual names on PATH."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if not found:
        raise harness.Unusable(f"no Chromium: none of {', '.join(CHROMIUM_NAMES)} on PATH, and $CHROMIUM is not set")
    return found


def run(session, program, commands, folder, deadline):
    """One session's checks as (name, problem or None), and its seconds."""
    began = time.monotonic()
    seconds_max = min(CLIENT_SECONDS_MAX, deadline - began)
    if seconds_max <= 0:
        return [("all of it", f"not started, as {ALL_SECONDS_MAX} s were over")], 0
    if session.client == "readme":
        ports = dict(zip(("port", "api", "monitor"), harness.free_ports(3)))
        subject = {"program": os.path.abspath(commands[0][0]), "ports": ports, "chromium": browser(),
                   "repository": str(harness.REPOSITORY)}
        return parse(*converse([*program, json.dumps(subject)], seconds_max)), time.monotonic() - began
    [admin] = harness.free_ports(1)
    config = configuration(session, admin)
    with harness.Server(commands, folder, config, session.compression) as server:
        process = server.process(session.tls)
        subject = {"url": server.url(session.tls), "ca": str(server.cert), "deflate": session.deflate,
                   "compression": session.compression, "limit": LIMIT, "pid": process.pid}
        if session.client in ("chromium", "original", "dashboard"):
            subject |= {"chromium": browser(), "secret": SECRET, "admin": f"http://127.0.0.1:{admin}",
                        "adminToken": ADMIN_TOKEN}
        if session.client == "cent":
            subject |= {"api": f"http://127.0.0.1:{admin}", "key": API_KEY, "secret": SECRET}
        output, ended = converse([*program, json.dumps(subject)], seconds_max)
        checks = parse(output, ended)
        checks.append(("SIGTERM ends the server with 0", server.exit_problem([process]) or None))
        if any(problem for _, problem in checks):
            print(f"--- end of the server's log, {session}\n{server.log_tail()}---", flush=True)
    return checks, time.monotonic() - began


def configuration(session, admin):
    """What the server of a session is configured by; `admin` is the port of its monitoring, where it has one."""
    if session.client == "dashboard":
        return WATCHED.format(admin=admin, admin_token=ADMIN_TOKEN, secret=SECRET)
    if session.client == "cent":
        return BACKEND.format(admin=admin, key=API_KEY, secret=SECRET)
    if session.client != "original":
        return CONFIG.replace("{compression}", str(session.compression).lower())
    publishers = {"/test/user/{name}/": "notifications_{name}", "/test/role/{name}/": "notifications_role_{name}",
                  "/test/all/": "notifications_all"}
    routes = [PUBLISHERS.replace("{path}", path).replace("{to}", to) for path, to in publishers.items()]
    return EXAMPLE.read_text().replace("[token]", f"[token]\nsecret = \"{SECRET}\"") + "".join(routes)


def converse(command, seconds_max):
    """Runs a client to its end or its deadline, with all that it started; what it printed, and how it ended."""
    client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, start_new_session=True)
    try:
        output, _ = client.communicate(timeout=seconds_max)
        return output, f"exit code {client.returncode}" if client.returncode else None
    except subprocess.TimeoutExpired:
        # The session's process group is the client's own: the browser it started goes with it.
        os.killpg(client.pid, signal.SIGKILL)
        output, _ = client.communicate()
        return output, f"still running after {seconds_max:.0f} s"


def parse(output, ended):
    """The client's lines as checks, with one more that it came to its end and left no check out."""
    lines = output.splitlines()
    checks = [(line[3:], None) for line in lines if line.startswith("ok ")]
    for line in lines:
        if line.startswith("not ok "):
            name, _, problem = line[7:].partition(": ")
            checks.append((name, problem or "no reason given"))
    plans = [int(match[1]) for line in lines if (match := re.fullmatch(r"1\.\.(\d+)", line))]
    problem = ended
    if not problem and plans != [len(checks)]:
        problem = f"{len(checks)} checks, planned were {plans}"
    if problem:
        problem += ":\n" + "\n".join(lines[-15:])
    checks.append(("the client comes to its end", problem))
    return checks


if __name__ == "__main__":
    harness.run(main)
