#!/usr/bin/env python3
"""A reconnect storm: what it does to those who are connected, and how many of those who come get in.

    python3 benches/storm.py                          # 10,000 connections, 3 rounds: about three minutes
    python3 benches/storm.py --connections 2000 --rounds 1 --key p256 --json storm.json

The server has one reactor, on a core of its own. On the other core are a probe, which holds the connections (all of
them TLS) and sends a message over one of them at even times, and the storm: clients that connect over TLS at a fixed
rate, whatever becomes of those before them, and leave when they are in. Who is not in within its patience gives up. A
latency runs from when its message was due, so a stall is charged for everything that should have been sent meanwhile.

Each round finds out how many handshakes a second the server can do (as many clients as it likes, one after the other),
then offers none, as many, twice and four times as many, in another order each round. The certificate is RSA by default:
signing costs the server several times what the client pays, so that one core can ask for far more than another can do.
"""
import argparse
import contextlib
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "compare"))
import run as compare  # noqa: E402

FACTORS = [0, 1, 2, 4]
SERVER = "{tidegate} serve --profile development --reactors 1 --listen-tls 127.0.0.1:{port} --tls-cert {cert} --tls-key {key}"
# The probe goes first on the core that both share.
STORM_NICENESS = 10
# Longer than the storm's clients wait, so that nothing of one storm is left in the next.
SETTLE_SECONDS = 3
OPEN_SECONDS_MAX = 60


class Probe:
    """The process that holds the open connections; `look` is what it measured for so many seconds."""

    def __init__(self, port, pid, core, connections, rate, *more):
        command = ["taskset", "-c", core, str(compare.BIN / "load"), "probe", "--address", f"127.0.0.1:{port}",
                   "--pid", str(pid), "--conns", str(connections), "--rate", str(rate), *more]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True)
        self.answer(OPEN_SECONDS_MAX)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def ask(self, seconds):
        """Begins to look."""
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()

    def answer(self, seconds_max):
        """The next line it prints, as a value."""
        late = threading.Timer(seconds_max, self.process.kill)
        late.start()
        line = self.process.stdout.readline()
        late.cancel()
        if not line:
            self.process.kill()
            raise compare.Unusable(f"the probe ended: {self.process.stderr.read().strip() or 'it was late'}")
        return json.loads(line)

    def look(self, seconds):
        """Latencies of a window."""
        self.ask(seconds)
        return self.answer(seconds + 30)


@contextlib.contextmanager
def server(arguments, cert, key):
    """A fresh server on its core: its port and process id."""
    port = compare.free_port()
    binary = arguments.tidegate or compare.TARGET / "release" / "tidegate"
    command = [word.format(tidegate=binary, port=port, cert=cert, key=key) for word in SERVER.split()]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    process = subprocess.Popen(["taskset", "-c", arguments.cores[0], *command, *arguments.server_arguments],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env=environment)
    try:
        compare.wait_until_it_listens(process, port, "tidegate")
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


def load(mode, port, pid, arguments, seconds, *more):
    """The generator in one of its modes; its process."""
    command = ["taskset", "-c", arguments.cores[1], "nice", "-n", str(STORM_NICENESS), str(compare.BIN / "load"), mode,
               "--tls", "--address", f"127.0.0.1:{port}", "--pid", str(pid), "--warmup", str(arguments.warmup),
               "--seconds", str(seconds), *more]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process):
    """What the generator found."""
    try:
        out, error = process.communicate(timeout=compare.LOAD_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise compare.Unusable("the generator did not end in time") from None
    if process.returncode:
        raise compare.Unusable(error.strip())
    return json.loads(out)


def measure_round(number, arguments, cert, key):
    """One round: a dictionary for each storm."""
    results = []
    held = (arguments.cores[1], arguments.connections, arguments.probes, "--tls")
    with server(arguments, cert, key) as (port, pid), Probe(port, pid, *held) as probe:
        capacity = result(load("connect", port, pid, arguments, arguments.seconds / 2, "--concurrency", "64"))["rate"]
        compare.say(f"round {number + 1}: {capacity:,.0f} handshakes a second at most")
        first = number % len(FACTORS)
        for factor in FACTORS[first:] + FACTORS[:first]:
            time.sleep(SETTLE_SECONDS)
            figures = {"round": number, "factor": factor, "capacity": capacity}
            if factor:
                storm = load("storm", port, pid, arguments, arguments.seconds, "--rate", str(round(capacity * factor)),
                             "--patience", str(arguments.patience))
                time.sleep(arguments.warmup)
                try:
                    figures["probe"] = probe.look(arguments.seconds)
                finally:
                    figures["storm"] = result(storm)
            else:
                figures["probe"] = probe.look(arguments.seconds)
            results.append(figures)
            compare.say(f"round {number + 1}: {brief(figures)}")
    return results


def brief(figures):
    """A line about one measurement."""
    latency = figures["probe"]["latency_us"]
    line = f"×{figures['factor']}: probe p50 {latency['p50']:,.0f}, p99 {latency['p99']:,.0f}, p99.9 " \
           f"{latency['p99.9']:,.0f}, own delay p99 {figures['probe']['own_delay_us']['p99']:,.0f} µs"
    if "storm" in figures:
        storm = figures["storm"]
        line += f"; {storm['offered_rate']:,.0f} came, {storm['rate']:,.0f} got in, {storm['gave_up_rate']:,.0f} gave up, " \
                f"{storm['turned_away_rate']:,.0f} turned away a second"
    return line


def table(results, arguments):
    """The figures as Markdown: median (min–max) of the rounds."""
    lines = ["| offered | came /s | got in /s | of capacity | gave up /s | turned away /s | wait p50, p99 ms "
             "| probe p50 µs | p99 µs | p99.9 µs | p99, to none | lost | server, storm CPU |",
             "|" + " --- |" * 13]
    quiet = {one["round"]: one["probe"]["latency_us"]["p99"] for one in results if one["factor"] == 0}
    for factor in FACTORS:
        mine = [one for one in results if one["factor"] == factor]

        def column(*keys, digits=3):
            values = [compare.value(one, keys) for one in mine]
            return compare.spread(values, digits)

        def median(*keys):
            return statistics.median(compare.value(one, keys) for one in mine)

        ratio = compare.spread([one["probe"]["latency_us"]["p99"] / quiet[one["round"]] for one in mine])
        lost = sum(one["probe"]["lost"] + one["probe"]["unsent"] for one in mine)
        probe = " | ".join(column("probe", "latency_us", name) for name in ("p50", "p99", "p99.9"))
        if factor == 0:
            lines.append(f"| none | – | – | – | – | – | – | {probe} | 1 | {lost} | – |")
            continue
        share = compare.spread([one["storm"]["rate"] / one["capacity"] for one in mine])
        waits = ", ".join(f"{median('storm', 'latency_us', name) / 1000:,.0f}" for name in ("p50", "p99"))
        lines.append(f"| {factor} × | {column('storm', 'offered_rate')} | {column('storm', 'rate')} | {share} "
                     f"| {column('storm', 'gave_up_rate')} | {column('storm', 'turned_away_rate')} | {waits} "
                     f"| {probe} | {ratio} | {lost} "
                     f"| {median('storm', 'server_cpu_share'):.0%}, {median('storm', 'client_cpu_share'):.0%} |")
    delays = statistics.median(one["probe"]["own_delay_us"]["p99"] for one in results)
    lines.append("")
    lines.append(f"{arguments.connections:,} connections, {arguments.probes:,} probes a second, {arguments.key} certificate, "
                 f"patience {arguments.patience:g} s. The probe itself was late by {delays:,.0f} µs at its p99 (median of "
                 "all windows); its latencies contain that.")
    return "\n".join(lines)


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    bounded = compare.bounded
    parser.add_argument("--connections", type=bounded(int, 1, 15_000), default=10_000, help="held open (10000)")
    parser.add_argument("--probes", type=bounded(int, 1, 10_000), default=1_000, help="messages a second (1000)")
    parser.add_argument("--rounds", type=bounded(int, 1, 20), default=3, help="rounds (3)")
    parser.add_argument("--seconds", type=bounded(float, 0.5, 60), default=4.0, help="window of a storm (4)")
    parser.add_argument("--warmup", type=bounded(float, 0.1, 60), default=2.5, help="storm before the window (2.5)")
    parser.add_argument("--patience", type=bounded(float, 0.1, 10), default=2.0, help="seconds a client waits (2)")
    parser.add_argument("--key", choices=["rsa2048", "p256"], default="rsa2048", help="of the certificate (rsa2048)")
    parser.add_argument("--cores", type=compare.two_cores, default=["0", "1"], help="server,generator (0,1)")
    parser.add_argument("--tidegate", type=pathlib.Path, help="another build of tidegate than target/release")
    parser.add_argument("--built", action="store_true", help="take load and tidegate as they have been built")
    parser.add_argument("--server-arguments", type=str.split, default=[], help="more arguments for the server")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the figures here as well")
    return parser.parse_args()


def main():
    """Measures and prints."""
    arguments = parse_arguments()
    # The probe's connections and the clients that wait are in two processes; the server has the former only.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if not arguments.built:
        compare.build([], arguments)
    cert, key = (compare.CACHE / f"{arguments.key}.{kind}.pem" for kind in ("certificate", "key"))
    if not (cert.exists() and key.exists()):
        kind = ["--rsa"] if arguments.key == "rsa2048" else []
        compare.must([str(compare.BIN / "load"), "certificate", str(cert), str(key), *kind], stdout=subprocess.DEVNULL)
    arguments.runs = arguments.rounds
    record = {"conditions": compare.conditions(arguments), "results": []}
    for number in range(arguments.rounds):
        record["results"] += measure_round(number, arguments, cert, key)
        if arguments.json:
            arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    print(table(record["results"], arguments))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except compare.Unusable as unusable:
        sys.exit(f"storm.py: {unusable}")
    except KeyboardInterrupt:
        sys.exit(130)
