#!/usr/bin/env python3
"""What monitoring costs: while it is asked for nothing, and what clients feel while it is asked without a pause.

`cost`: echoes with it and without it, in turns. Two servers of one reactor each, the same program; one has
`monitor.listen = []`, so that nothing is measured at all, the other reports every second and keeps a row for each
connection. The load goes to one after the other, and the order changes with each round. The figure is the server's CPU
for a message, of all its threads; the ratio that counts is the median of the rounds' ratios. Exit code 1 if monitoring
costs more than `--most` of the CPU.

`asked` (H7): a server with very many open connections, over which messages go there and back at even times. Meanwhile
nobody asks the monitor for anything; or somebody asks for sorted pages of a thousand connections, all figures and the
rest as often as the rate limit allows; or the same without any pause, so that most of it is refused. The figures are
what the connections felt.

    benches/monitoring.py cost --server target/ci/tidegate --rounds 7
    benches/monitoring.py asked --server target/ci/tidegate --connections 10000

The server has one core and the generator the other. `--load` is the generator of benches/compare (`benches/compare/run.py`
builds it).
"""
import argparse
import http.client
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tests"))
import harness  # noqa: E402

CASES = {"64 B, 100 connections, 1 in flight": ["--conns", "100", "--depth", "1", "--size", "64"],
         "64 B, 100 connections, 16 in flight": ["--conns", "100", "--depth", "16", "--size", "64"],
         "1 KiB, 1000 connections, 1 in flight": ["--conns", "1000", "--depth", "1", "--size", "1024"]}
QUESTIONS = ["/metrics", "/api/monitoring/websocket/figures/", "/api/monitoring/websocket/funnel/",
             "/api/monitoring/websocket/connections/?sort=idle&limit=1000",
             "/api/monitoring/websocket/connections/?sort=bytes_sent&limit=1000&address=127.0.0.0/8",
             "/api/monitoring/websocket/connections/?sort=outbox_bytes&limit=1000&idle_min=1",
             "/api/monitoring/websocket/history/"]
CONFIG = "reactors = 1\nlog.level = \"error\"\n[monitor]\nlisten = [{listen}]\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cost", "asked"])
    harness.add_server_arguments(parser)
    parser.add_argument("--load", default=str(REPOSITORY / "target" / "compare" / "release" / "load"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1, help="of each measurement (default: 1)")
    parser.add_argument("--connections", type=int, default=10_000, help="asked: held open, at most 15000")
    parser.add_argument("--probes", type=int, default=1_000, help="asked: messages a second (default: 1000)")
    parser.add_argument("--most", type=float, default=0.02, help="share of the CPU it may cost (default: 0.02)")
    arguments = parser.parse_args()
    if not shutil.which(arguments.load):
        raise harness.Unusable(f"no generator at {arguments.load}; benches/compare/run.py builds it")
    return cost(arguments) if arguments.what == "cost" else asked(arguments)


def cost(arguments):
    """The server's CPU for a message, without monitoring and with it."""
    commands = [[word for word in words if word not in ("--reactors", "2")] for words in harness.templates(arguments)]
    port, = harness.free_ports(1)
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="tidegate-monitoring-") as scratch:
        folder = pathlib.Path(scratch)
        listen = {"without": "", "with": f'"127.0.0.1:{port}"'}
        configs = {name: CONFIG.format(listen=address) for name, address in listen.items()}
        with harness.Server(commands, folder / "without", configs["without"], False) as without, \
                harness.Server(commands, folder / "with", configs["with"], False) as monitored:
            servers = {"without": without, "with": monitored}
            for case, options in CASES.items():
                rounds = [measure(servers, options, arguments, number) for number in range(arguments.rounds)]
                ratios = sorted(one["with"] / one["without"] for one in rounds)
                ratio = statistics.median(ratios)
                worst = max(worst, ratio - 1)
                costs = {name: statistics.median(one[name] for one in rounds) for name in servers}
                print(f"{case}: {costs['without']:.3f} µs without, {costs['with']:.3f} µs with, ratio {ratio:.3f} "
                      f"({ratios[0]:.3f} to {ratios[-1]:.3f})", flush=True)
    return 1 if worst > arguments.most else 0


def measure(servers, options, arguments, number):
    """One round: the server's CPU for a message of each, in microseconds."""
    found = {}
    for name in sorted(servers, reverse=bool(number % 2)):
        server = servers[name]
        command = ["taskset", "-c", "1", arguments.load, "echo", "--address", f"127.0.0.1:{server.plain_port}",
                   "--pid", str(server.process(False).pid), "--seconds", str(arguments.seconds), "--warmup", "0.3", *options]
        subprocess.run(["taskset", "-a", "-p", "-c", "0", str(server.process(False).pid)], check=True,
                       stdout=subprocess.DEVNULL)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise harness.Unusable(f"the generator failed: {done.stderr.strip()[-300:]}")
        found[name] = json.loads(done.stdout)["server_cpu_us_per_unit"]
    return found


def asked(arguments):
    """What open connections feel while the monitor is left alone, asked, and asked beyond its limit."""
    commands = [[word for word in words if word not in ("--reactors", "2")] for words in harness.templates(arguments)]
    port, = harness.free_ports(1)
    found = {name: [] for name in ASKERS}
    with tempfile.TemporaryDirectory(prefix="tidegate-monitoring-") as scratch:
        config = CONFIG.format(listen=f'"127.0.0.1:{port}"')
        with harness.Server(commands, pathlib.Path(scratch), config, False) as server:
            pid = server.process(False).pid
            subprocess.run(["taskset", "-a", "-p", "-c", "0", str(pid)], check=True, stdout=subprocess.DEVNULL)
            with Probe(server.plain_port, pid, arguments) as probe:
                for number in range(arguments.rounds):
                    names = list(ASKERS)
                    for name in names[number % 3:] + names[:number % 3]:
                        with Asker(port, ASKERS[name]) as asker:
                            time.sleep(1)
                            began = asker.answers.copy()
                            look = probe.look(arguments.seconds)
                        look["answers"] = {code: count - began.get(code, 0) for code, count in asker.answers.items()}
                        found[name].append(look)
    print("| the monitor is | answered 200 /s | refused 429 /s | echo p50 µs | p99 µs | p99.9 µs | p99, to alone "
          "| generator late, p99 µs | lost |")
    print("|" + " --- |" * 9)
    for name, looks in found.items():
        rate = {code: statistics.median(look["answers"].get(code, 0) / arguments.seconds for look in looks)
                for code in (200, 429)}
        latency = [statistics.median(look["latency_us"][quantile] for look in looks) for quantile in ("p50", "p99", "p99.9")]
        ratio = statistics.median(look["latency_us"]["p99"] / alone["latency_us"]["p99"]
                                  for look, alone in zip(looks, found["left alone"]))
        late = statistics.median(look["own_delay_us"]["p99"] for look in looks)
        lost = sum(look["lost"] + look["unsent"] for look in looks)
        print(f"| {name} | {rate[200]:,.0f} | {rate[429]:,.0f} | {latency[0]:,.0f} | {latency[1]:,.0f} | {latency[2]:,.0f} "
              f"| {ratio:.2f} | {late:,.0f} | {lost} |")
    print(f"\n{arguments.connections:,} connections, {arguments.probes:,} messages a second, medians of {arguments.rounds} "
          f"rounds of {arguments.seconds:g} s.")
    return 0


# Requests a second: those that the limit (50 unless changed) lets through, and as many as somebody can ask.
ASKERS = {"left alone": 0, "asked at its limit": 50, "asked without a pause": None}


class Asker:
    """Somebody who asks the monitor over one connection, one question after another."""

    def __init__(self, port, rate):
        self.answers = {}
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.ask, args=(port, rate), daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.thread.join(30)

    def ask(self, port, rate):
        if rate == 0:
            return
        # The generator goes first on the core that both share.
        os.sched_setaffinity(threading.get_native_id(), {1})
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        due, number = time.monotonic(), 0
        while not self.is_over.is_set():
            client.request("GET", QUESTIONS[number % len(QUESTIONS)])
            answer = client.getresponse()
            answer.read()
            self.answers[answer.status] = self.answers.get(answer.status, 0) + 1
            number += 1
            if rate:
                due += 1 / rate
                self.is_over.wait(max(0, due - time.monotonic()))


class Probe:
    """The generator that holds the connections and looks when it is told to."""

    def __init__(self, port, pid, arguments):
        command = ["taskset", "-c", "1", arguments.load, "probe", "--address", f"127.0.0.1:{port}", "--pid", str(pid),
                   "--conns", str(min(arguments.connections, 15_000)), "--rate", str(arguments.probes)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True)

    def __enter__(self):
        try:
            self.answer(60)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def look(self, seconds):
        """Latencies of a window."""
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return self.answer(seconds + 30)

    def answer(self, seconds_max):
        late = threading.Timer(seconds_max, self.process.kill)
        late.start()
        line = self.process.stdout.readline()
        late.cancel()
        if not line:
            self.process.kill()
            raise harness.Unusable(f"the generator ended: {self.process.stderr.read().strip() or 'it was late'}")
        return json.loads(line)


if __name__ == "__main__":
    harness.run(main)
