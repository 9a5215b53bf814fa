#!/usr/bin/env python3
"""What fan-out costs: tidegate beside Node `ws` with a broadcast written by hand, and beside Django Channels with its
in-memory layer under Uvicorn, the stack that tidegate replaces.

    python3 benches/fanout.py                                   # builds what is missing, then measures: some minutes
    python3 benches/fanout.py --servers tidegate,channels --rounds 1 --seconds 1

Three tables, each round going once through all servers: deliveries per second and the server's CPU time for each, with
1, 100 and 10,000 subscribers (one publishes, the next message when all have the last one); the time from publication to
delivery at a steady rate; resident memory of a connection that has subscribed and is idle. For tidegate also what the
subscription is of that, and what a channel of one's own costs.

Builds and starts servers as `benches/compare/run.py` does: the server on one core, the generator on the other.
"""
import argparse
import json
import pathlib
import resource
import socket
import statistics
import struct
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "compare"))
import run  # noqa: E402

SERVERS = (run.OURS, "node-ws", "channels")
SUBSCRIBERS = (1, 100, 10_000)
# Subscribers and publications a second. The last is about half of what Channels can do.
RATES = ((100, 100), (100, 4))
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


def fanout(subscribers, rate=None):
    """A case of the generator's."""
    pace = f"--rate {rate}" if rate else "--depth 1"
    return run.Case("fanout", f"--size 128 --text --conns {subscribers} {pace} --path /broadcast", False, "delivery")


def rounds(arguments, case):
    """Server → the results of all rounds, or why there is none."""
    results = {}
    for number in range(arguments.rounds):
        first = number % len(arguments.servers)
        for name in arguments.servers[first:] + arguments.servers[:first]:
            try:
                result = run.load(name, case, arguments)
            except run.Unusable as error:
                run.say(str(error))
                continue
            results.setdefault(name, []).append(result)
            run.say(f"{case.arguments} {name}: {run.brief(case, result)}")
    return results


def column(results, *keys):
    """Median and range of a figure, or a dash where nothing was measured."""
    return run.spread([run.value(result, keys) for result in results]) if results else "–"


def speed(arguments):
    """The first table."""
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
    """The second table."""
    lines = ["| subscribers, publications/s | server | p50 µs | p99 µs | p99.9 µs | server CPU |",
             "| --- | --- | --- | --- | --- | --- |"]
    record = []
    for subscribers, rate in RATES:
        measured = rounds(arguments, fanout(subscribers, rate))
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
    """The third table."""
    lines = ["| server | subscribed to | RSS bytes per connection | connections per GiB |", "| --- | --- | --- | --- |"]
    record = []
    for name in arguments.servers:
        paths = {"one channel, all of them": "/broadcast"}
        if name == run.OURS:
            paths = {"nothing": "/echo", "one channel, all of them": "/shared/", "a channel each": "/own/{}/"}
        count = MEMORY_CONNECTIONS.get(name, MEMORY_CONNECTIONS_OTHERS)
        for what, path in paths.items():
            each = statistics.median(held(arguments, name, path, count) for _ in range(arguments.rounds))
            record.append({"server": name, "subscribed_to": what, "connections": count, "bytes": each})
            lines.append(f"| {name} | {what} | {each:,.0f} | {2 ** 30 / each:,.0f} |")
            run.say(lines[-1])
    return lines, record


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


TABLES = {"speed": speed, "latency": latency, "memory": memory}


def main():
    """Builds, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=run.names_of(SERVERS), default="all", help=f"all, or of: {', '.join(SERVERS)}")
    parser.add_argument("--tables", type=run.names_of(TABLES), default="all", help=f"all, or of: {', '.join(TABLES)}")
    parser.add_argument("--subscribers", type=int, nargs="+", default=SUBSCRIBERS)
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
