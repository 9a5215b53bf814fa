#!/usr/bin/env python3
"""Runs the Autobahn fuzzing client against the server and compares every case with expected.json.

    tests/conformance/run.py                 groups 1-7, 9 and 10, over plain TCP and TLS
    tests/conformance/run.py --sample        these, and a representative part of 12 and 13 (permessage-deflate)
    tests/conformance/run.py --full          all cases
    tests/conformance/run.py --groups 6,9.1  these groups, sub-groups or cases

Both the behaviour and the way the connection was closed have to be as expected: OK, or INFORMATIONAL in the
few cases whose outcome the suite does not judge. A case without a result counts as failed.

Exit codes: 0 all as expected · 1 some case was not · 2 the suite could not run · 77 skipped, as there is no
CPython 2.7 (the suite is Python 2 code), neither on PATH nor under pyenv.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import harness  # noqa: E402

DEFAULT_GROUPS = "1-7,9,10"
# In each sub-group of 12 and 13: tiny messages, 16 KiB, and 8 KiB in fragments of 256 octets. Each case sends 1,000
# messages, and the suite itself is what takes the time: so the largest ones, whole (9: 64 KiB) and in
# fragments (18: 128 KiB), come with two sub-groups of each.
SAMPLE_LAST_NUMBERS = ("1", "7", "11")
SAMPLE_LARGE = ("12.2.18", "12.5.9", "13.1.9", "13.4.18")
SKIPPED = 77
OUTCOMES = ("OK", "INFORMATIONAL")
# The last virtualenv that makes environments for Python 2.7.
VIRTUALENV = "virtualenv==20.21.1"
# Started first, so that no long chunk begins when all others have ended.
LONGEST_FIRST = ("12", "13", "6", "9", "5")


def main():
    arguments = parse_arguments()
    expected = load_expected()
    cases = select(expected, arguments)
    python2 = find_python2()
    if not python2:
        print("conformance: skipped: needs CPython 2.7 (the Autobahn suite is Python 2 code), "
              "on PATH as python2.7 or under pyenv")
        return SKIPPED
    wstest = install(python2)
    check_complete(wstest, expected)
    return run(arguments, wstest, expected, cases)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_server_arguments(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--groups", help=f"groups, sub-groups or cases (default: {DEFAULT_GROUPS})")
    which.add_argument("--sample", action="store_true", help="the default groups and a part of 12 and 13")
    which.add_argument("--full", action="store_true", help="every case of the suite")
    parser.add_argument("--transports", default="plain,tls", help="plain, tls or both (default)")
    parser.add_argument("--path", default="/echo", help="path of an echo route")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="fuzzing clients at a time")
    parser.add_argument("--minutes-max", type=float, help="stop after this time (default: 10, with --full 45)")
    parser.add_argument("--reports", metavar="DIR", help="keep the suite's reports and logs there")
    return parser.parse_args()


def load_expected():
    """Case → (behaviour, closing behaviour). Nothing but the best outcome may ever be expected."""
    expected = json.loads((HERE / "expected.json").read_text())
    for case, outcome in expected.items():
        if len(outcome) != 2 or any(part not in OUTCOMES for part in outcome):
            raise harness.Unusable(f"expected.json: {case}: {outcome} is no outcome to be content with")
    return expected


def select(expected, arguments):
    """The cases to run, in the suite's order."""
    if arguments.full:
        return list(expected)
    wanted = []
    for part in (arguments.groups or DEFAULT_GROUPS).split(","):
        names = [part]
        if span := re.fullmatch(r"(\d+)-(\d+)", part):
            names = [str(group) for group in range(int(span[1]), int(span[2]) + 1)]
        for name in names:
            found = [case for case in expected if case == name or case.startswith(name + ".")]
            if not found:
                raise harness.Unusable(f"no case of the suite is in {name!r}")
            wanted += found
    if arguments.sample:
        wanted += [case for case in expected
                   if case.split(".")[0] in ("12", "13") and case.split(".")[2] in SAMPLE_LAST_NUMBERS]
        wanted += SAMPLE_LARGE
    return [case for case in expected if case in set(wanted)]


def find_python2():
    """A CPython 2.7 that really starts; a pyenv shim without a chosen version does not."""
    roots = [os.environ.get("PYENV_ROOT"), os.path.expanduser("~/.pyenv")]
    installed = [path for root in roots if root for path in pathlib.Path(root).glob("versions/2.7*/bin/python2.7")]
    for candidate in [shutil.which("python2.7"), *map(str, sorted(installed, reverse=True))]:
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    return None


def install(python2):
    """The suite in an environment of its own, made once and kept in the cache; returns the environment's `bin`."""
    requirements = HERE / "requirements.txt"
    folder = harness.cache() / "autobahn"
    stamp = folder / "installed"
    if not harness.current(stamp, requirements):
        shutil.rmtree(folder, ignore_errors=True)
        maker = folder / "virtualenv"
        harness.install([sys.executable, "-m", "venv", maker])
        harness.install([maker / "bin" / "pip", "install", "-q", VIRTUALENV])
        harness.install([maker / "bin" / "virtualenv", "-q", "-p", python2, folder / "suite"])
        harness.install([folder / "suite" / "bin" / "pip", "install", "-q", "-r", requirements])
        harness.mark(stamp, requirements)
    return folder / "suite" / "bin"


LIST_CASES = """
from autobahntestsuite import case
from autobahntestsuite.caseset import CaseSet
cases = CaseSet(case.CaseSetname, case.CaseBasename, case.Cases, case.CaseCategories, case.CaseSubCategories)
print(' '.join(cases.caseClasstoId(one) for one in case.Cases))
"""


def check_complete(suite, expected):
    """The expected results must name exactly the suite's cases, so that none is left out unnoticed."""
    listed = subprocess.run([suite / "python", "-c", LIST_CASES], capture_output=True, text=True, timeout=60)
    known = listed.stdout.split()
    if listed.returncode or not known:
        raise harness.Unusable(f"the suite lists no cases: {listed.stderr[-500:]}")
    if set(known) != set(expected):
        raise harness.Unusable(f"expected.json and the suite differ in {sorted(set(known) ^ set(expected))}")


def chunks(cases):
    """Cases for one fuzzing client each: by sub-group where cases take long, else by group."""
    parts = {}
    for case in cases:
        numbers = case.split(".")
        key = ".".join(numbers[:2]) if numbers[0] in ("9", "12", "13") else numbers[0]
        parts.setdefault(key, []).append(case)
    rank = {group: place for place, group in enumerate(LONGEST_FIRST)}
    return sorted(parts.items(), key=lambda part: rank.get(part[0].split(".")[0], len(rank)))


class FuzzingClients:
    """Runs fuzzing clients, each over one chunk, until the one deadline of them all."""

    def __init__(self, suite, server, path, folder, deadline):
        self.suite, self.server, self.path = suite, server, path
        self.folder, self.deadline = folder, deadline

    def run(self, transport, name, cases):
        """Case → result as the suite reports it, the seconds it took, and why results may be missing."""
        began = time.monotonic()
        if began >= self.deadline:
            return {}, 0, "the time for the whole run was over"
        reports = self.folder / f"{transport}-{name}"
        reports.mkdir(parents=True)
        spec = reports / "spec.json"
        spec.write_text(json.dumps({
            "outdir": str(reports), "cases": cases, "exclude-cases": [], "exclude-agent-cases": {},
            "servers": [{"agent": "server", "url": self.server.url(transport == "tls") + self.path}]}))
        log = reports / "wstest.log"
        problem = None
        with open(log, "wb") as out:
            client = subprocess.Popen([self.suite / "wstest", "-m", "fuzzingclient", "-s", spec],
                                      stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=reports)
            try:
                code = client.wait(self.deadline - began)
                problem = f"the fuzzing client ended with {code}" if code else None
            except subprocess.TimeoutExpired:
                problem = "the fuzzing client was stopped, as the time for the whole run was over"
            finally:
                if client.poll() is None:
                    client.kill()
                client.wait()
        index = reports / "index.json"
        results = json.loads(index.read_text()).get("server", {}) if index.exists() else {}
        if not results:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            problem = f"{problem or 'it reported nothing'}; its last words: {' '.join(last)[:300]}"
        for result in results.values():
            detail = json.loads((reports / result["reportfile"]).read_text())
            result["why"] = f"{detail.get('result')} / {detail.get('resultClose')}"
        return results, time.monotonic() - began, problem


def judge(expected, result, problem):
    """What differs between an expected and an actual outcome; None where nothing does."""
    if result is None:
        return f"no result ({problem or 'the fuzzing client left it out'})"
    actual = [result["behavior"], result["behaviorClose"]]
    if actual == expected:
        return None
    return f"{' and close '.join(actual)} where {' and close '.join(expected)} is expected: {result['why']}"


def run(arguments, suite, expected, cases):
    transports = arguments.transports.split(",")
    if not set(transports) <= {"plain", "tls"}:
        raise harness.Unusable(f"no such transports: {arguments.transports}")
    minutes_max = arguments.minutes_max or (45 if arguments.full else 10)
    began = time.monotonic()
    tally = harness.Tally()
    totals = {}
    with tempfile.TemporaryDirectory(prefix="tidegate-conformance-") as scratch:
        folder = pathlib.Path(arguments.reports or scratch).resolve()
        if folder.exists() and arguments.reports and any(folder.iterdir()):
            raise harness.Unusable(f"{folder} is not empty")
        config = (HERE / "tidegate.toml").read_text().replace("{compression}", "true")
        with harness.Server(harness.templates(arguments), folder, config, compression=True) as server:
            clients = FuzzingClients(suite, server, arguments.path, folder, began + 60 * minutes_max)
            with concurrent.futures.ThreadPoolExecutor(max(1, arguments.jobs)) as pool:
                work = {}
                for name, chunk in chunks(cases):
                    for transport in transports:
                        work[pool.submit(clients.run, transport, name, chunk)] = (transport, name, chunk)
                for done in concurrent.futures.as_completed(work):
                    transport, name, chunk = work[done]
                    results, seconds, problem = done.result()
                    total = totals.setdefault((transport, name.split(".")[0]), [0, 0, 0.0])
                    for case in chunk:
                        difference = judge(expected[case], results.get(case), problem)
                        tally.add(f"{transport} {case}", difference)
                        total[1 if difference else 0] += 1
                    total[2] += seconds
            tally.add("the server stays up through all cases and ends on SIGTERM with 0", server.stop())
            if tally.failures:
                print(f"--- end of the server's log\n{server.log_tail()}---")
    for transport, group in sorted(totals, key=lambda key: (key[0], int(key[1]))):
        passed, failed, seconds = totals[transport, group]
        print(f"{transport:5} group {group:>2}: {passed:3} as expected, {failed:3} not, {seconds:6.1f} s of one client")
    print(f"{len(cases)} of {len(expected)} cases over {' and '.join(transports)} "
          f"in {time.monotonic() - began:.0f} s with {arguments.jobs} clients at a time")
    return tally.close()


if __name__ == "__main__":
    harness.run(main)
