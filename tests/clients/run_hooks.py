#!/usr/bin/env python3
"""Hooks against a real backend: a Django project's views, and a client that sees what they answer.

Exit codes: 0 all passed · 1 some check failed · 2 the suite could not run.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))
import harness  # noqa: E402
import run as clients  # noqa: E402

CLIENT_SECONDS_MAX = 120
TOKEN_SECRET = "0123456789abcdef0123456789abcdef"
HOOK_SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
CONFIG = """
[monitor]
listen = ["127.0.0.1:{monitor}"]

[token]
secret = "{token_secret}"
required = true
user_claim = "user_id"
kept_claims = ["role"]

[hooks]
secret = "{hook_secret}"

[[route]]
path = "/ws/notifications/"
kind = "channels"
channels = ["notifications_{user}"]
unmatched = "hook"
on_open = "http://127.0.0.1:{backend}/hooks/notifications/"
on_message = "http://127.0.0.1:{backend}/hooks/notifications/"

[[route]]
path = "/ws/projects/{project_id}/"
kind = "channels"
channels = ["project_{project_id}"]
unmatched = "hook"
authorise = "http://127.0.0.1:{backend}/hooks/projects/"
on_open = "http://127.0.0.1:{backend}/hooks/projects/"
on_message = "http://127.0.0.1:{backend}/hooks/projects/"
on_close = "http://127.0.0.1:{backend}/hooks/projects/"
"""
USERS = {"42": [], "1": ["role=Admin"], "5": ["role=Student"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_server_arguments(parser)
    arguments = parser.parse_args()
    commands = harness.templates(arguments)
    python = environment()
    backend, monitor = harness.free_ports(2)
    config = CONFIG
    for name, value in {"backend": backend, "monitor": monitor, "token_secret": TOKEN_SECRET,
                        "hook_secret": HOOK_SECRET}.items():
        config = config.replace("{" + name + "}", str(value))
    tally = harness.Tally()
    with tempfile.TemporaryDirectory(prefix="tidegate-hooks-") as folder, \
            harness.Server(commands, pathlib.Path(folder), config, False) as server:
        subject = {"url": server.url(False), "backend_port": backend, "monitor_port": monitor, "secret": HOOK_SECRET,
                   "tokens": {user: token(arguments.server, folder, user, more) for user, more in USERS.items()}}
        output, ended = clients.converse([python, HERE / "hooks_django.py", json.dumps(subject)], CLIENT_SECONDS_MAX)
        checks = clients.parse(output, ended)
        checks.append(("SIGTERM ends the server with 0", server.stop()))
        for name, problem in checks:
            tally.add(name, problem)
        if any(problem for _, problem in checks):
            print(f"--- end of the server's log\n{server.log_tail()}---", flush=True)
    return tally.close()


def environment():
    """Django and the client, in an environment of their own."""
    requirements, folder = HERE / "hooks-requirements.txt", harness.cache() / "hooks"
    stamp = folder / "installed"
    if not harness.current(stamp, requirements):
        shutil.rmtree(folder, ignore_errors=True)
        harness.install([sys.executable, "-m", "venv", folder])
        harness.install([folder / "bin" / "pip", "install", "-q", "-r", requirements])
        harness.mark(stamp, requirements)
    return folder / "bin" / "python"


def token(program, folder, user, more):
    """A token as the program makes them."""
    made = subprocess.run([program, "token", "--config", pathlib.Path(folder) / "tidegate.toml", f"user_id={user}", *more],
                          capture_output=True, text=True, timeout=30,
                          env={k: v for k, v in os.environ.items() if not k.startswith("TIDEGATE_")})
    if made.returncode:
        raise harness.Unusable(f"no token: {made.stderr.strip()}")
    return made.stdout.strip()


if __name__ == "__main__":
    harness.run(main)
