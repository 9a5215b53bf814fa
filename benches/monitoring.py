#!/usr/bin/env python3
"""What monitoring costs while it is asked for nothing: echoes with it and without it, in turns.

Two servers of one reactor each, the same program; one has `monitor.listen = []`, so that nothing is measured at all,
the other reports every second and keeps a row for each connection. The load goes to one after the other, and the order
changes with each round. The figure is the server's CPU for a message, of all its threads; the ratio that counts is the
median of the rounds' ratios.

    benches/monitoring.py --server target/ci/tidegate --load PATH/load --rounds 7

`load` is the generator of benches/compare (`benches/compare/run.py` builds it). Exit code 1 if monitoring costs more
than `--most` of the CPU.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tests"))
import harness  # noqa: E402

CASES = {"64 B, 100 connections, 1 in flight": ["--conns", "100", "--depth", "1", "--size", "64"],
         "64 B, 100 connections, 16 in flight": ["--conns", "100", "--depth", "16", "--size", "64"],
         "1 KiB, 1000 connections, 1 in flight": ["--conns", "1000", "--depth", "1", "--size", "1024"]}
CONFIG = "reactors = 1\nlog.level = \"error\"\n[monitor]\nlisten = [{listen}]\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_server_arguments(parser)
    parser.add_argument("--load", default=str(REPOSITORY / "target" / "compare" / "release" / "load"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", default="1")
    parser.add_argument("--most", type=float, default=0.02, help="share of the CPU it may cost (default: 0.02)")
    arguments = parser.parse_args()
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
                   "--pid", str(server.process(False).pid), "--seconds", arguments.seconds, "--warmup", "0.3", *options]
        subprocess.run(["taskset", "-a", "-p", "-c", "0", str(server.process(False).pid)], check=True,
                       stdout=subprocess.DEVNULL)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise harness.Unusable(f"the generator failed: {done.stderr.strip()[-300:]}")
        found[name] = json.loads(done.stdout)["server_cpu_us_per_unit"]
    return found


if __name__ == "__main__":
    harness.run(main)
