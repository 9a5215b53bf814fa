#!/usr/bin/env python3
"""Compares tidegate with other WebSocket servers on this machine: CPU time per message, latency, memory.

    python3 benches/compare/run.py [--cases echo64_c100_d1,hold] [--peers ceiling,node-ws] [--runs 5]

Builds what is missing below target/, then measures. Every measurement has a fresh server on one core and
the generator on another; each round of a case goes once through tidegate and all peers, so that they share
the machine's good and bad minutes. Prints a Markdown table and writes every single result as JSON.
"""
import argparse
import contextlib
import fcntl
import json
import os
import pathlib
import platform
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")).absolute()
CACHE = TARGET / "compare"
BIN = CACHE / "release"
CERTIFICATE, KEY = CACHE / "certificate.pem", CACHE / "key.pem"
NODE_PEER = CACHE / "node-ws"
CHANNELS_PEER = CACHE / "channels"

OURS = "tidegate"
START_SECONDS_MAX = 10
STOP_SECONDS_MAX = 3
# Opening 10,000 connections to the slowest server takes some seconds; a minute is a fault.
LOAD_SECONDS_MAX = 120
# A closed loop keeps one of two cores busy. If neither was, something else had them.
BUSY_SHARE_MIN = 0.8
ATTEMPTS_DEFAULT = 3
# What disturbed an attempt may be over a little later.
PAUSE_SECONDS = 2
# Below this share of resumed sessions, "resumed" would be the wrong word.
RESUMED_SHARE_MIN = 0.99


class Case(NamedTuple):
    """One row of the comparison: what the generator does, and what a unit of it is."""
    mode: str
    arguments: str
    tls: bool
    unit: str


class Peer(NamedTuple):
    """How a server is started, and which modes or cases it has no answer to."""
    plain: str
    tls: str | None
    package: str | None
    lacks: tuple = ()
    raw: bool = False


class Unusable(Exception):
    """One line that says why something could not be measured."""


def echo(size, conns, depth, tls=False):
    return Case("echo", f"--size {size} --conns {conns} --depth {depth}", tls, "message")


def fanout(depth, tls=False):
    return Case("fanout", f"--size 128 --conns 5000 --depth {depth} --path /broadcast", tls, "delivery")


CASES = {
    "echo64_c100_d1": echo(64, 100, 1),
    "echo64_c100_d16": echo(64, 100, 16),
    "echo64_c5000_d1": echo(64, 5000, 1),
    "echo64_c5000_d16": echo(64, 5000, 16),
    "echo1k_c100_d1": echo(1024, 100, 1),
    "echo1k_c100_d16": echo(1024, 100, 16),
    "echo1k_c5000_d1": echo(1024, 5000, 1),
    "echo1k_c5000_d16": echo(1024, 5000, 16),
    "echo64k_c100_d1": echo(65536, 100, 1),
    "fanout5000_d1": fanout(1),
    "fanout5000_d16": fanout(16),
    "connect": Case("connect", "", False, "connection"),
    "hold": Case("hold", "--conns 10000", False, "connection"),
    "tls_echo64_c100_d1": echo(64, 100, 1, tls=True),
    "tls_echo64_c100_d16": echo(64, 100, 16, tls=True),
    "tls_echo64_c5000_d1": echo(64, 5000, 1, tls=True),
    "tls_echo64_c5000_d16": echo(64, 5000, 16, tls=True),
    "tls_echo1k_c100_d1": echo(1024, 100, 1, tls=True),
    "tls_echo64k_c100_d1": echo(65536, 100, 1, tls=True),
    "tls_fanout5000_d1": fanout(1, tls=True),
    "tls_fanout5000_d16": fanout(16, tls=True),
    "tls_connect_full": Case("connect", "", True, "connection"),
    "tls_connect_resumed": Case("connect", "--resume", True, "connection"),
    "tls_hold": Case("hold", "--conns 10000", True, "connection"),
}

RUST = "{bin}/%s --listen 127.0.0.1:{port}"
RUST_TLS = " --tls-cert {cert} --tls-key {key}"


def rust_peer(package, arguments="", **rest):
    plain = RUST % package + arguments
    return Peer(plain, plain + RUST_TLS, package, **rest)


PEERS = {
    OURS: Peer("{tidegate} serve --profile development --reactors 1 --listen 127.0.0.1:{port}",
               "{tidegate} serve --profile development --reactors 1 --listen-tls 127.0.0.1:{port}" + RUST_TLS,
               None),
    "ceiling": Peer(RUST % "peer-ceiling", None, "peer-ceiling", lacks=("hold",), raw=True),
    "tokio-tungstenite": rust_peer("peer-tokio-tungstenite"),
    "tokio-tungstenite-4k": rust_peer("peer-tokio-tungstenite", " --read-buffer 4096"),
    "fastwebsockets": rust_peer("peer-fastwebsockets", lacks=("fanout",)),
    "node-ws": Peer("node {node}/server.mjs {port}", "node {node}/server.mjs {port} {cert} {key}", None,
                    # Half of its handshakes are full ones: the generator uses a ticket once, and gets too few.
                    lacks=("tls_connect_resumed",)),
    # The stack that tidegate replaces. Its in-memory layer keeps a group within one process, so one is what it has.
    "channels": Peer("{channels}/bin/python -m uvicorn app:application --app-dir {here}/peers/channels "
                     "--host 127.0.0.1 --port {port} --log-level error --ws websockets-sansio --backlog 4096", None, None,
                     lacks=tuple(case for case in CASES if not case.startswith("fanout"))),
}


# ---- building

def build(peers, arguments):
    """Builds what the chosen peers need; drops, with a word, those that cannot be built here."""
    CACHE.mkdir(parents=True, exist_ok=True)
    packages = ["load"] + sorted({PEERS[name].package for name in peers if PEERS[name].package})
    say("building " + ", ".join(packages))
    cargo = ["cargo", "build", "--release", "--locked", "--quiet"]
    command = [*cargo, "--manifest-path", str(HERE / "Cargo.toml"), "--target-dir", str(CACHE)]
    for package in packages:
        command += ["--package", package]
    must(command)
    if arguments.tidegate is None:
        say("building tidegate")
        must([*cargo, "--manifest-path", str(REPOSITORY / "Cargo.toml"), "--target-dir", str(TARGET)])
    if not (CERTIFICATE.exists() and KEY.exists()):
        must([str(BIN / "load"), "certificate", str(CERTIFICATE), str(KEY)], stdout=subprocess.DEVNULL)
    if "node-ws" in peers and not install_node_peer():
        peers.remove("node-ws")
    if "channels" in peers and not install_channels_peer():
        peers.remove("channels")


def install_channels_peer():
    requirements, stamp = HERE / "peers" / "channels" / "requirements.txt", CHANNELS_PEER / "installed"
    if stamp.exists() and stamp.read_bytes() == requirements.read_bytes():
        return True
    shutil.rmtree(CHANNELS_PEER, ignore_errors=True)
    for command in ([sys.executable, "-m", "venv", CHANNELS_PEER],
                    [CHANNELS_PEER / "bin" / "pip", "install", "-q", "-r", requirements]):
        if subprocess.run(command).returncode:
            say("channels is left out: pip could not install it")
            return False
    shutil.copy(requirements, stamp)
    return True


def install_node_peer():
    if not (shutil.which("node") and shutil.which("npm")):
        say("node-ws is left out: no node and npm on PATH")
        return False
    NODE_PEER.mkdir(exist_ok=True)
    lock = NODE_PEER / "package-lock.json"
    fresh = (NODE_PEER / "node_modules" / "ws").is_dir() and lock.exists() \
        and lock.read_bytes() == (HERE / "peers" / "node-ws" / "package-lock.json").read_bytes()
    for file in (HERE / "peers" / "node-ws").glob("*.*"):
        shutil.copy(file, NODE_PEER)
    if fresh:
        return True
    if subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=NODE_PEER).returncode:
        # Half an installation would look like a whole one next time.
        shutil.rmtree(NODE_PEER, ignore_errors=True)
        say("node-ws is left out: npm could not install it")
        return False
    return True


def must(command, **options):
    try:
        code = subprocess.run(command, **options).returncode
    except FileNotFoundError as error:
        raise Unusable(f"{error.filename} is not on PATH") from error
    if code:
        raise Unusable(f"failed: {' '.join(command)}")


# ---- measuring

def free_port():
    """A port below the ephemeral range where there is one, lest a client's own port take it meanwhile."""
    for port in range(20000, 30000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Unusable("no free port between 20000 and 30000")


@contextlib.contextmanager
def server(name, tls, arguments):
    """A fresh server on its core: its port and process id."""
    port = free_port()
    template = PEERS[name].tls if tls else PEERS[name].plain
    # Split first: a path may contain blanks.
    command = [word.format(bin=BIN, port=port, cert=CERTIFICATE, key=KEY, node=NODE_PEER,
                           channels=CHANNELS_PEER, here=HERE,
                           tidegate=arguments.tidegate or TARGET / "release" / "tidegate")
               for word in template.split()]
    process = subprocess.Popen(["taskset", "-c", arguments.cores[0], *command],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_it_listens(process, port, name)
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_it_listens(process, port, name):
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Unusable(f"{name} ended with {process.returncode} instead of listening")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
            return
        time.sleep(0.02)
    raise Unusable(f"{name} does not listen after {START_SECONDS_MAX} s")


def load(name, case, arguments):
    """One measurement: the generator's result."""
    with server(name, case.tls, arguments) as (port, pid):
        command = ["taskset", "-c", arguments.cores[1], str(BIN / "load"), case.mode,
                   "--address", f"127.0.0.1:{port}", "--pid", str(pid),
                   "--warmup", str(arguments.warmup), "--seconds", str(arguments.seconds),
                   *case.arguments.split()]
        if case.tls:
            command.append("--tls")
        if PEERS[name].raw:
            command.append("--raw")
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_SECONDS_MAX)
        except subprocess.TimeoutExpired as error:
            raise Unusable(f"{name}: the generator did not end within {LOAD_SECONDS_MAX} s") from error
        if done.returncode:
            raise Unusable(f"{name}: {done.stderr.strip()}")
        return json.loads(done.stdout)


def fault(case, result):
    """Why a result must not count, or nothing."""
    busy = max(result["server_cpu_share"], result["client_cpu_share"])
    if case.mode != "hold" and busy < BUSY_SHARE_MIN:
        return f"neither side was busy ({busy:.0%} at most)"
    if "--resume" in case.arguments and result["resumed_share"] < RESUMED_SHARE_MIN:
        return f"only {result['resumed_share']:.1%} of the handshakes were resumed"
    return None


def measure(name, label, run, arguments):
    """A result that counts, or one that says why none was had."""
    case = CASES[label]
    why = None
    for attempt in range(arguments.attempts):
        if attempt > 0:
            time.sleep(PAUSE_SECONDS)
        try:
            with lock(arguments.lock):
                result = load(name, case, arguments)
        except Unusable as error:
            why = str(error)
            continue
        why = fault(case, result)
        if why is None:
            say(f"{label} #{run + 1} {name}: {brief(case, result)}")
            return {"case": label, "server": name, "run": run, **result}
    say(f"{label} #{run + 1} {name}: DISCARDED after attempt {arguments.attempts}: {why}")
    return {"case": label, "server": name, "run": run, "discarded": why}


@contextlib.contextmanager
def lock(path):
    """Held around one measurement, so that others who use it get their turn in between."""
    if path is None:
        yield
        return
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def brief(case, result):
    if case.mode == "hold":
        return f"{result['rss_bytes_per_conn']:.0f} B per connection"
    return (f"{result['server_cpu_us_per_unit']:.3f} µs per {case.unit}, {result['rate']:.0f}/s, "
            f"server {result['server_cpu_share']:.0%}, generator {result['client_cpu_share']:.0%}")


def has(name, label):
    """Whether a server can be asked this at all."""
    case, peer = CASES[label], PEERS[name]
    return not {case.mode, label} & set(peer.lacks) and (peer.tls is not None or not case.tls)


# ---- reporting

def cost(result):
    """The figure that is compared: CPU time per unit or, of idle connections, memory of each."""
    return result.get("server_cpu_us_per_unit", result.get("rss_bytes_per_conn"))


def spread(values, digits=3):
    """Median (min–max), to so many significant digits."""
    shown = [number(value, digits) for value in (statistics.median(values), min(values), max(values))]
    return f"{shown[0]} ({shown[1]}–{shown[2]})" if len(values) > 1 else shown[0]


def number(value, digits=3):
    if abs(value) >= 10 ** digits:
        return f"{value:,.0f}"
    text = f"{value:#.{digits}g}"
    return text.rstrip(".") if "e" not in text else f"{value:.{digits}f}"


def ratios(results, label, peer):
    """tidegate / peer, one for each round in which both were measured."""
    by_run = {}
    for result in results:
        if result["case"] == label and "discarded" not in result:
            by_run.setdefault(result["run"], {})[result["server"]] = cost(result)
    return [costs[OURS] / costs[peer] for costs in by_run.values()
            if OURS in costs and costs.get(peer, 0) > 0]


def table(results, labels, names):
    """Two Markdown tables, work and memory, of what was measured."""
    work = ["| case | server | CPU µs per unit | tidegate / it | units/s | p50 µs | p99 µs | p99.9 µs | server, generator CPU |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    memory = ["| case | server | RSS bytes per connection | after idling | tidegate / it | idle CPU |",
              "| --- | --- | --- | --- | --- | --- |"]
    for label in labels:
        for name in names:
            mine = [result for result in results if (result["case"], result["server"]) == (label, name)]
            good = [result for result in mine if "discarded" not in result]
            if not good:
                continue
            compared = ratios(results, label, name) if name != OURS else []
            ratio = f"**{spread(compared, 3)}**" if compared else ""

            def column(*keys, digits=3):
                return spread([value(result, keys) for result in good], digits)

            def median(key):
                return statistics.median(result[key] for result in good)

            unit = f"{label} ({CASES[label].unit})"
            lost = f" ({len(mine) - len(good)} discarded)" if len(good) < len(mine) else ""
            if CASES[label].mode == "hold":
                memory.append(f"| {label} | {name}{lost} | {column('rss_bytes_per_conn')} "
                              f"| {column('rss_bytes_per_conn_after_idle')} | {ratio} "
                              f"| {median('server_cpu_share'):.1%} |")
            else:
                work.append(f"| {unit} | {name}{lost} | {column('server_cpu_us_per_unit')} | {ratio} "
                            f"| {column('rate')} | {column('latency_us', 'p50')} "
                            f"| {column('latency_us', 'p99')} | {column('latency_us', 'p99.9')} "
                            f"| {median('server_cpu_share'):.0%}, {median('client_cpu_share'):.0%} |")
    return "\n\n".join("\n".join(lines) for lines in (work, memory) if len(lines) > 2)


def value(result, keys):
    for key in keys:
        result = result[key]
    return result


def conditions(arguments):
    """What a reader of the JSON needs to judge the figures."""
    model = ""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break

    def first_line(*command):
        with contextlib.suppress(OSError):
            return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY).stdout.strip()
        return ""

    return {"when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "kernel": platform.release(),
            "cpu": model, "cores": os.cpu_count(), "rustc": first_line("rustc", "--version"),
            "node": first_line("node", "--version"), "commit": first_line("git", "rev-parse", "HEAD"),
            "warmup": arguments.warmup, "seconds": arguments.seconds, "runs": arguments.runs}


def say(text):
    print(text, file=sys.stderr, flush=True)


# ---- command line

def names_of(known):
    def parse(text):
        chosen = list(known) if text == "all" else [name for name in text.split(",") if name]
        unknown = [name for name in chosen if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        return chosen
    return parse


def two_cores(text):
    cores = text.split(",")
    if len(cores) != 2 or not all(core.isdigit() for core in cores) or cores[0] == cores[1]:
        raise argparse.ArgumentTypeError("expected two different cores, such as 0,1")
    return cores


def bounded(kind, least, most):
    def parse(text):
        parsed = kind(text)
        if not least <= parsed <= most:
            raise argparse.ArgumentTypeError(f"expected {least} to {most}")
        return parsed
    return parse


def parse_arguments():
    peers = [name for name in PEERS if name != OURS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=names_of(CASES), default="all", help=f"all, or of: {', '.join(CASES)}")
    parser.add_argument("--peers", type=names_of(peers), default="all", help=f"all, or of: {', '.join(peers)}")
    parser.add_argument("--runs", type=bounded(int, 1, 100), default=5, help="rounds of each case (5)")
    parser.add_argument("--seconds", type=bounded(float, 0.1, 60), default=2.0, help="window of a run (2)")
    parser.add_argument("--warmup", type=bounded(float, 0, 60), default=0.5, help="before the window (0.5)")
    parser.add_argument("--attempts", type=bounded(int, 1, 10), default=ATTEMPTS_DEFAULT,
                        help=f"how often a disturbed run is tried before it is discarded ({ATTEMPTS_DEFAULT})")
    parser.add_argument("--cores", type=two_cores, default=["0", "1"], help="server,generator (0,1)")
    parser.add_argument("--tidegate", type=pathlib.Path, help="another build of tidegate than this checkout's")
    parser.add_argument("--json", type=pathlib.Path, default=CACHE / "results.json", help="where results go")
    parser.add_argument("--lock", type=pathlib.Path, help="file to lock (flock) during each measurement")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    if sys.platform != "linux" or not shutil.which("taskset"):
        raise Unusable("this needs Linux and taskset (util-linux)")
    # Both sides inherit it: 10,000 connections need as many descriptors and some more.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    peers = list(arguments.peers)
    build(peers, arguments)
    names = [OURS, *peers]
    record = {"conditions": conditions(arguments), "results": []}
    results = record["results"]
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    for label in arguments.cases:
        asked = [name for name in names if has(name, label)]
        for run in range(arguments.runs):
            # Another one begins each round, so that none always follows the same one.
            first = run % len(asked)
            for name in asked[first:] + asked[:first]:
                results.append(measure(name, label, run, arguments))
                arguments.json.write_text(json.dumps(record, indent=1))
    print(table(results, arguments.cases, names))
    lost = [result for result in results if "discarded" in result]
    for result in lost:
        print(f"\ndiscarded: {result['case']} #{result['run'] + 1} {result['server']}: {result['discarded']}")
    say(f"every result: {arguments.json}")
    return 1 if lost else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unusable as unusable:
        sys.exit(f"run.py: {unusable}")
    except KeyboardInterrupt:
        sys.exit(130)
