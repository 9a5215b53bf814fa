#!/usr/bin/env python3
"""What fan-out costs: tidegate beside Node `ws` with a broadcast written by hand, and beside Django Channels with its
in-memory layer under Uvicorn, the stack that tidegate replaces.

    python3 benches/fanout.py --tables summary                  # the README's first table: five minutes
    python3 benches/fanout.py                                   # all tables: a quarter of an hour
    python3 benches/fanout.py --servers tidegate,channels --rounds 1 --seconds 1

Builds what is missing, then measures, each round going once through all servers. The tables:

summary   a row for each server: idle subscribers per GiB; deliveries for each second of its CPU time, to 1,000
          subscribers; the time from publication to delivery at 10 a second to 100 subscribers.
speed     deliveries per second and the server's CPU time for each, with 1, 100, 1,000 and 10,000 subscribers: one
          publishes, the next message when all have the last one.
latency   the time from publication to delivery at steady rates.
memory    resident memory of a connection that has subscribed and is idle; for tidegate also what the subscription is of
          that, and what a channel of one's own costs.
others    of tidegate alone: what a hundred connections that have nothing to do with it feel while one message after the
          other goes to 15,000.

Channels is not asked to serve 10,000: its layer goes through all members of all groups with each delivery, so that its
work grows with the square of their number.

Builds and starts servers as `benches/compare/run.py` does: the server on one core, the generator on the other.
"""
import argparse
import json
import pathlib
import resource
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "compare"))
sys.path.insert(0, str(HERE))
import run  # noqa: E402
import storm  # noqa: E402

SERVERS = (run.OURS, "node-ws", "channels")
SUBSCRIBERS = (1, 100, 1_000, 10_000)
SUBSCRIBERS_MAX = {"channels": 2_000}
# Subscribers and publications a second. The last is what Channels can do with room to spare.
RATES = ((100, 100), (1_000, 10), (100, 10))
# The one table that shows all servers at the same work.
SUMMARY_SUBSCRIBERS = 1_000
SUMMARY_RATE = (100, 10)
# Ten publications a second want a longer window than a closed loop does, for a p99.9 of more than the worst one.
LATENCY_WINDOWS = 3
LATENCY_SECONDS_MAX = 50
# Those who are told of nothing: connections, and their messages a second.
OTHERS, OTHERS_RATE = 100, 500
# Messages a second to the crowd: each takes the server a tenth of a second of its core, or less.
CROWD_RATE = 2
# The others' process goes first on the core that both generators share.
CROWD_NICENESS = 10
# What the first message costs is no part of the window.
CROWD_SETTLE_SECONDS = 2
# Above this the server is behind, and the figure is the length of its queue.
OVERLOADED_SHARE = 0.95
MEMORY_CONNECTIONS = {run.OURS: 10_000}
MEMORY_CONNECTIONS_OTHERS = 2_000
WARM_CONNECTIONS = 64
PATIENCE_SECONDS = 60
CONFIG = """
[websocket]
ping_interval = "off"
[[route]]
path = "/shared/"
kind = "channels"
token = "none"
channels = ["shared"]
[[route]]
path = "/own/{room}/"
kind = "channels"
token = "none"
channels = ["own_{room}"]
"""


class Fanout(NamedTuple):
    """A case of the generator's, and how many it is about."""
    subscribers: int
    case: run.Case


def fanout(subscribers, rate=None):
    """So many subscribers; publications at a rate, or one after the other."""
    pace = f"--rate {rate}" if rate else "--depth 1"
    arguments = f"--size 128 --text --conns {subscribers} {pace} --path /broadcast"
    return Fanout(subscribers, run.Case("fanout", arguments, False, "delivery"))


def rounds(arguments, case):
    """Server → the results of all rounds, or why there is none."""
    results = {}
    for number in range(arguments.rounds):
        first = number % len(arguments.servers)
        for name in arguments.servers[first:] + arguments.servers[:first]:
            if case.subscribers > SUBSCRIBERS_MAX.get(name, case.subscribers):
                continue
            try:
                result = run.load(name, case.case, arguments)
            except run.Unusable as error:
                run.say(str(error))
                continue
            results.setdefault(name, []).append(result)
            run.say(f"{case.case.arguments} {name}: {run.brief(case.case, result)}")
    return results


def column(results, *keys):
    """Median and range of a figure, or a dash where nothing was measured."""
    return run.spread([run.value(result, keys) for result in results]) if results else "–"


def summary(arguments):
    """All servers at the same work, a row for each."""
    lines = ["| server | idle subscribers per GiB | deliveries per CPU second | to tidegate's | publication to delivery: p50 ms | p99 ms | p99.9 ms |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    record = []
    subscribers, rate = SUMMARY_RATE
    work = rounds(arguments, fanout(SUMMARY_SUBSCRIBERS))
    steady = rounds(longer(arguments), fanout(subscribers, rate))

    def per_second(results):
        return [1e6 / run.cost(result) for result in results]

    ours = per_second(work.get(run.OURS, []))
    for name in arguments.servers:
        path = "/shared/" if name == run.OURS else "/broadcast"
        each = idle(arguments, name, path)
        worked, waited = work.get(name, []), steady.get(name, [])
        record += [{"server": name, "idle_bytes": each, "work": worked, "steady": waited}]
        cells = [f"{2 ** 30 / statistics.median(each):,.0f}" if each else "–",
                 run.spread(per_second(worked)) if worked else "–",
                 run.number(statistics.median(per_second(worked)) / statistics.median(ours)) if worked and ours else "–"]
        for percentile in ("p50", "p99", "p99.9"):
            figures = [result["latency_us"][percentile] / 1000 for result in waited]
            cells.append(run.spread(figures) if figures else "–")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines, record


def longer(arguments):
    """The same arguments with a longer window."""
    return argparse.Namespace(**{**vars(arguments), "seconds": min(LATENCY_SECONDS_MAX, arguments.seconds * LATENCY_WINDOWS)})


def idle(arguments, name, path):
    """Resident bytes of an idle connection on a path, of each round that came to its end."""
    figures = []
    for _ in range(arguments.rounds):
        try:
            figures.append(held(arguments, name, path, MEMORY_CONNECTIONS.get(name, MEMORY_CONNECTIONS_OTHERS)))
            run.say(f"idle {name} {path}: {figures[-1]:,.0f} B per connection")
        except (run.Unusable, OSError) as error:
            run.say(f"idle {name} {path}: {error}")
    return figures


def speed(arguments):
    """Deliveries one after the other."""
    lines = ["| subscribers | server | deliveries/s | CPU µs per delivery | tidegate / it | server, generator CPU |",
             "| --- | --- | --- | --- | --- | --- |"]
    record = []
    for subscribers in arguments.subscribers:
        measured = rounds(arguments, fanout(subscribers))
        ours = [run.cost(result) for result in measured.get(run.OURS, [])]
        for name in arguments.servers:
            results = measured.get(name, [])
            record += [{"subscribers": subscribers, "server": name, **result} for result in results]
            ratio = ""
            if name != run.OURS and ours and results:
                ratio = run.number(statistics.median(ours) / statistics.median(map(run.cost, results)))
            shares = ", ".join(f"{statistics.median(result[key] for result in results):.0%}" if results else "–"
                               for key in ("server_cpu_share", "client_cpu_share"))
            lines.append(f"| {subscribers:,} | {name} | {column(results, 'rate')} "
                         f"| {column(results, 'server_cpu_us_per_unit')} | {ratio} | {shares} |")
    return lines, record


def latency(arguments):
    """Deliveries at a steady rate."""
    lines = ["| subscribers, publications/s | server | p50 µs | p99 µs | p99.9 µs | server CPU |",
             "| --- | --- | --- | --- | --- | --- |"]
    record = []
    for subscribers, rate in RATES:
        measured = rounds(longer(arguments), fanout(subscribers, rate))
        for name in arguments.servers:
            results = measured.get(name, [])
            record += [{"subscribers": subscribers, "per_second": rate, "server": name, **one} for one in results]
            share = statistics.median(one["server_cpu_share"] for one in results) if results else 0
            cells = [column(results, "latency_us", key) for key in ("p50", "p99", "p99.9")]
            if share > OVERLOADED_SHARE:
                cells = ["overloaded", "", ""]
            lines.append(f"| {subscribers}, {rate} | {name} | {' | '.join(cells)} | {share:.1%} |")
    return lines, record


def memory(arguments):
    """What is resident."""
    lines = ["| server | subscribed to | RSS bytes per connection | connections per GiB |", "| --- | --- | --- | --- |"]
    record = []
    for name in arguments.servers:
        paths = {"one channel, all of them": "/broadcast"}
        if name == run.OURS:
            paths = {"nothing": "/echo", "one channel, all of them": "/shared/", "a channel each": "/own/{}/"}
        count = MEMORY_CONNECTIONS.get(name, MEMORY_CONNECTIONS_OTHERS)
        for what, path in paths.items():
            figures = idle(arguments, name, path)
            if not figures:
                continue
            each = statistics.median(figures)
            record.append({"server": name, "subscribed_to": what, "connections": count, "bytes": figures})
            lines.append(f"| {name} | {what} | {each:,.0f} | {2 ** 30 / each:,.0f} |")
    return lines, record


def others(arguments):
    """What connections feel that are told of nothing, while messages go to a crowd."""
    lines = ["| messages a second to the crowd | echo of others: p50 ms | p99 ms | p99.9 ms | longest ms "
             "| late by itself, p99 ms | delivery to the crowd: p50, p99 ms |", "|" + " --- |" * 7]
    record = []
    seconds = longer(arguments).seconds
    for _ in range(arguments.rounds):
        with run.server(run.OURS, False, arguments) as (port, pid), \
                storm.Probe(port, pid, arguments.cores[1], OTHERS, OTHERS_RATE, "--path", "/echo") as probe:
            quiet = probe.look(seconds)
            command = ["taskset", "-c", arguments.cores[1], "nice", "-n", str(CROWD_NICENESS), run.BIN / "load", "fanout",
                       *fanout(arguments.crowd, CROWD_RATE).case.arguments.split(), "--address", f"127.0.0.1:{port}",
                       "--pid", str(pid), "--warmup", "0", "--seconds", str(CROWD_SETTLE_SECONDS + seconds + 2)]
            crowd = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                     text=True)
            try:
                wait_for_crowd(pid, arguments.crowd, crowd)
                busy = probe.look(seconds)
            finally:
                told = storm.result(crowd)
        record.append({"quiet": quiet, "busy": busy, "crowd": told})
        latency = told["latency_us"]
        run.say(f"others: longest {quiet['latency_us']['max'] / 1000:.1f} ms, with a crowd "
                f"{busy['latency_us']['max'] / 1000:.1f} ms; to the crowd p99 {latency['p99'] / 1000:.1f} ms")
    for which, rate in (("quiet", "none"), ("busy", str(CROWD_RATE))):
        def cell(*keys):
            return run.spread([run.value(one, (which, *keys)) / 1000 for one in record])
        crowd = "–"
        if which == "busy":
            crowd = ", ".join(run.spread([one["crowd"]["latency_us"][key] / 1000 for one in record]) for key in ("p50", "p99"))
        cells = [cell("latency_us", key) for key in ("p50", "p99", "p99.9", "max")] + [cell("own_delay_us", "p99"), crowd]
        lines.append(f"| {rate} | {' | '.join(cells)} |")
    lost = sum(one[which]["lost"] + one[which]["unsent"] for one in record for which in ("quiet", "busy"))
    lines += ["", f"{arguments.crowd:,} subscribers of one channel, {OTHERS} others with {OTHERS_RATE} messages a second "
              f"together, of which {lost} were lost or not sent."]
    return lines, record


def wait_for_crowd(pid, count, crowd):
    """Waits until the server has so many connections more than the others, and the first message has been delivered."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir())) < count + OTHERS:
        if crowd.poll() is not None:
            raise run.Unusable(f"the crowd has gone: {crowd.stderr.read().strip()}")
        if time.monotonic() > deadline:
            raise run.Unusable("the crowd did not come in time")
        time.sleep(0.5)
    time.sleep(CROWD_SETTLE_SECONDS)


def held(arguments, name, path, count):
    """Resident bytes of the server for each of so many idle connections."""
    clients = []
    with run.server(name, False, arguments) as (port, pid):
        def connect(number):
            one = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
            # Reset at the end: thousands of ports in TIME_WAIT would be in the way of the next run.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.sendall(f"GET {path.format(number)} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                        "Sec-WebSocket-Version: 13\r\n\r\n".encode())
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                piece = one.recv(4096)
                if not piece:
                    raise run.Unusable(f"{name} ended a connection")
                head += piece
            if not head.startswith(b"HTTP/1.1 101 "):
                raise run.Unusable(f"{name} refused: {head[:80]!r}")
            clients.append(one)

        try:
            for number in range(WARM_CONNECTIONS):
                connect(number)
            time.sleep(1)
            before = resident(pid)
            for number in range(count):
                connect(WARM_CONNECTIONS + number)
            time.sleep(1)
            return (resident(pid) - before) / count
        finally:
            for one in clients:
                one.close()


def resident(pid):
    """Resident bytes of a process, to the page."""
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise run.Unusable("no Rss in smaps_rollup")


TABLES = {"summary": summary, "speed": speed, "latency": latency, "memory": memory, "others": others}


def main():
    """Builds, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=run.names_of(SERVERS), default="all", help=f"all, or of: {', '.join(SERVERS)}")
    parser.add_argument("--tables", type=run.names_of(TABLES), default="all", help=f"all, or of: {', '.join(TABLES)}")
    parser.add_argument("--subscribers", type=int, nargs="+", default=SUBSCRIBERS)
    parser.add_argument("--crowd", type=run.bounded(int, 1, 18_000), default=15_000, help="of the table of others (15000)")
    parser.add_argument("--rounds", type=run.bounded(int, 1, 20), default=3)
    parser.add_argument("--seconds", type=run.bounded(float, 0.5, 60), default=3.0, help="window of a run (3)")
    parser.add_argument("--warmup", type=run.bounded(float, 0, 60), default=0.5)
    parser.add_argument("--cores", type=run.two_cores, default=["0", "1"], help="server,generator (0,1)")
    parser.add_argument("--tidegate", type=pathlib.Path, help="another build of tidegate than this checkout's")
    parser.add_argument("--json", type=pathlib.Path, default=run.CACHE / "fanout.json", help="where results go")
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    peers = [name for name in arguments.servers if name != run.OURS]
    run.build(peers, arguments)
    arguments.servers = [name for name in arguments.servers if name == run.OURS or name in peers]
    record = {"conditions": run.conditions(argparse.Namespace(runs=arguments.rounds, **vars(arguments)))}
    with tempfile.TemporaryDirectory(prefix="tidegate-fanout-") as folder:
        config = pathlib.Path(folder) / "tidegate.toml"
        config.write_text(CONFIG)
        ours = run.PEERS[run.OURS]
        run.PEERS[run.OURS] = ours._replace(plain=f"{ours.plain} --config {config}")
        for name in arguments.tables:
            lines, record[name] = TABLES[name](arguments)
            print("\n".join(lines) + "\n", flush=True)
    arguments.json.write_text(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except run.Unusable as unusable:
        sys.exit(f"fanout.py: {unusable}")
    except KeyboardInterrupt:
        sys.exit(130)
