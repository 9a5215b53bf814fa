#!/usr/bin/env python3
"""The monitoring endpoints as other programs read them.

Prometheus' own Python parser reads `/metrics`, and so does `promtool` where there is one, on PATH or in the tests' cache;
it reads the alert rules of `tuning/` too. Every curl line of the README's sections about it is run as it is written, but
for the port.

Exit codes: 0 all passed · 1 some check failed · 2 the suite could not run.
"""
import argparse
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import harness  # noqa: E402

REQUIREMENTS = ("prometheus-client==0.26.0", "websockets==17.4")
CONFIG = "[monitor]\nlisten = [\"127.0.0.1:{port}\"]\n"
CONNECTIONS = 20
MESSAGES = 5
SECONDS_MAX = 20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_server_arguments(parser)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.inside:
        return subprocess.run([environment(), __file__, *sys.argv[1:], "--inside"], check=False).returncode
    tally = harness.Tally()
    port, = harness.free_ports(1)
    with tempfile.TemporaryDirectory(prefix="tidegate-monitoring-") as scratch:
        config = CONFIG.format(port=port)
        with harness.Server(harness.templates(arguments), pathlib.Path(scratch), config, False) as server:
            with traffic(server.url(False)):
                for name, check in (("prometheus_client reads /metrics", parse),
                                    ("the figures are those of the clients", compare),
                                    ("promtool finds nothing wrong with /metrics", lint),
                                    ("promtool takes the alert rules", rules),
                                    ("the README's curl lines work", curl)):
                    tally.add(name, problem_of(check, f"http://127.0.0.1:{port}"))
            tally.add("SIGTERM ends the server with 0", server.stop())
    return tally.close()


def environment():
    """A Python with the packages; returns its path."""
    folder, text = harness.cache() / "monitoring", "\n".join(REQUIREMENTS)
    stamp = folder / "installed"
    if not stamp.exists() or stamp.read_text() != text:
        shutil.rmtree(folder, ignore_errors=True)
        harness.install([sys.executable, "-m", "venv", folder])
        harness.install([folder / "bin" / "pip", "install", "-q", *REQUIREMENTS])
        stamp.write_text(text)
    return folder / "bin" / "python"


def traffic(url):
    """Open connections, each of which has had its messages echoed; closed at the end of a `with` block."""
    import contextlib
    from websockets.sync.client import connect
    stack = contextlib.ExitStack()
    for _ in range(CONNECTIONS):
        client = stack.enter_context(connect(url + "/echo"))
        for _ in range(MESSAGES):
            client.send("hello")
            assert client.recv() == "hello"
    return stack


def problem_of(check, base):
    try:
        return check(base)
    except Exception as error:  # whatever it is, it is the check's failure
        return f"{type(error).__name__}: {error}"


def get(url):
    with urllib.request.urlopen(url, timeout=SECONDS_MAX) as answer:
        return answer.read().decode(), answer.headers["Content-Type"]


def families(base):
    from prometheus_client.openmetrics.parser import text_string_to_metric_families
    text, kind = get(base + "/metrics")
    assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8", kind
    return {family.name: family for family in text_string_to_metric_families(text)}


def parse(base):
    found = families(base)
    missing = {"tidegate_build", "tidegate_connections", "tidegate_refusals", "process_cpu_seconds"} - set(found)
    return f"missing: {missing}" if missing else None


def compare(base):
    deadline = time.monotonic() + SECONDS_MAX
    while True:
        found = families(base)

        def total(family, sample):
            return sum(one.value for one in found[family].samples if one.name == sample)

        figures = {
            "open": total("tidegate_connections_open", "tidegate_connections_open"),
            "opened": total("tidegate_connections_opened", "tidegate_connections_opened_total"),
            "received": total("tidegate_messages_received", "tidegate_messages_received_total"),
            "bytes": total("tidegate_sent_bytes", "tidegate_sent_bytes_total"),
            "latencies": total("tidegate_send_latency_seconds", "tidegate_send_latency_seconds_count"),
        }
        messages = CONNECTIONS * MESSAGES
        expected = {"open": CONNECTIONS, "opened": CONNECTIONS, "received": messages, "bytes": 5 * messages,
                    "latencies": messages}
        if figures == expected:
            return None
        if time.monotonic() > deadline:
            return f"{figures} instead of {expected}"
        time.sleep(0.1)


def find_promtool():
    """Its path; none where it is not installed, which is said."""
    found = shutil.which("promtool") or shutil.which(harness.cache() / "promtool")
    if not found:
        print("promtool: not installed, not asked")
    return found


def rules(_base):
    promtool = find_promtool()
    if not promtool:
        return None
    file = harness.REPOSITORY / "tuning" / "prometheus-alerts.yml"
    done = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, timeout=60)
    return (done.stderr + done.stdout).strip() if done.returncode else None


def lint(base):
    promtool = find_promtool()
    if not promtool:
        return None
    # It reads the older format, whose counters have their whole name in the TYPE line.
    text, _ = get(base + "/metrics")
    text = re.sub(r"(?m)^# (TYPE|HELP) (\S+) counter$", r"# \1 \2_total counter", text)
    names = set(re.findall(r"(?m)^# TYPE (\S+)_total counter$", text))
    text = re.sub(r"(?m)^# HELP (\S+) ", lambda m: f"# HELP {m[1]}_total " if m[1] in names else m[0], text)
    text = re.sub(r"(?m)^# TYPE (\S+) info$", r"# TYPE \1_info gauge", text)
    text = re.sub(r"(?m)^# HELP tidegate_build ", "# HELP tidegate_build_info ", text)
    text = "".join(line for line in text.splitlines(True) if not line.startswith(("# UNIT", "# EOF")))
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    return (done.stderr + done.stdout).strip() if done.returncode else None


def curl(base):
    readme = (harness.REPOSITORY / "README.md").read_text()
    sections = [readme.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0] for title in ("Monitoring", "Dashboard and alerts")]
    lines = [line for section in sections for line in section.splitlines() if line.startswith("curl ")]
    if len(lines) < 15:
        return f"only {len(lines)} lines found"
    for line in lines:
        words = shlex.split(line, comments=True)
        words = [word.replace("http://127.0.0.1:9480", base) for word in words]
        done = subprocess.run([words[0], "--fail-with-body", "-m", str(SECONDS_MAX), *words[1:]],
                              capture_output=True, text=True, timeout=60)
        if done.returncode or not done.stdout:
            return f"{line}: exit code {done.returncode}: {done.stdout}{done.stderr}"
        if "/api/" in line:
            json.loads(done.stdout)
    return None


if __name__ == "__main__":
    harness.run(main)
