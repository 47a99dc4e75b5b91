"""`ram-ebpf status`: what the running instances govern."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from ram_ebpf.cli.instances import ask
from ram_ebpf.cli.printing import print_lines
from ram_ebpf.policy.words import plural


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb `status`; its arguments carry `run`."""
    parser = subparsers.add_parser(
        "status",
        help="show what is governed",
        description="Shows what the running instances govern. Exit status: 69 when none runs, 77 not root.",
    )
    parser.add_argument(
        "--addresses",
        action="store_true",
        help="with each learned address and its name",
    )
    parser.add_argument(
        "--json", action="store_true", help="as JSON, a list with one object an instance: docs/json.md"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Asks all instances; the exit status."""
    answers = ask({"verb": "status", "addresses": args.addresses})
    if isinstance(answers, int):
        return answers
    if args.json:
        print(json.dumps(answers, indent=2))
        return 0
    for answer in answers:
        print_lines(_lines(answer))
    return 0


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    if "error" in answer:
        yield f"ram-ebpf (pid {answer['instance']}): {answer['error']}"
        return
    whose = f" of {answer['organization']}" if answer.get("organization") else ""
    who = f"ram-ebpf {answer['version']} (pid {answer['instance']})"
    yield f"{who}: {answer['mode']}, {answer['policy']}{whose}"
    if "kernel" in answer:  # not of an instance of an older version, nor the rest of these
        digest = f"SHA-256 {answer['digest'][:12]}; " if answer["digest"] else ""
        version = f"policy version {answer['policy_version']}, " if "policy_version" in answer else ""
        yield f"  {version}{digest}resolvers: {', '.join(answer['resolvers']) or 'none'}"
        kernel = answer["kernel"]
        yield f"  Linux {kernel['release']}, which has: {', '.join(kernel['features']) or 'nothing extra'}"
    for warning in answer.get("warnings", ()):
        yield f"  warning, {warning['about']}: {warning['explanation']}"
    for scope in answer["scopes"]:
        more = f", {scope['registries']} more registries" if scope["registries"] else ""
        learned = plural(scope["learned"], "learned entry", "learned entries")
        if scope.get("next_expiry_seconds") is not None:
            learned += f", the first to go in {scope['next_expiry_seconds']} s"
        rules = f"{plural(sum(scope['rules'].values()), 'rule')}, " if "rules" in scope else ""
        yield f"  {scope['scope']} ({scope['posture']}{more}): {rules}{learned}"
        places = [*scope["cgroups"], *(f"device {name}" for name in scope["devices"])]
        for place in places or ["nothing of it is there now"]:
            yield f"    {place}"
        for item in scope.get("addresses", ()):
            ports = ",".join(map(str, item["ports"]))
            why = f"{item['name']}, " if item["name"] else ""
            yield f"    {item['address']} port {ports}: {why}rule {item['rule']}, {item['seconds']} s"
    if answer.get("lease_seconds"):
        yield f"  nothing is refused any more when the daemon is gone for {answer['lease_seconds']} s"
    if "responder" in answer:  # not of an instance of an older version
        yield f"  responder: {_responder(answer['responder'])}"
    denied = {name: count for name, count in answer["counters"].items() if name.startswith("denied-")}
    for name, count in denied.items():
        yield f"  {name}: {count}"


def _responder(state: dict[str, Any]) -> str:
    """Whether who is refused reads why, where that is told, or why it is not."""
    if state["state"] == "waiting":
        return "waits for a control group to be governed; at devices refusals are resets"
    if state["state"] == "starting":
        return "starting; until then refusals are EPERM"
    if state["state"] == "off":
        return f"off, {state['why']}"
    if state["state"] != "on":
        return f"does not run, so refusals are EPERM: {state['why']}"
    line = f"on, listens at {' and '.join(state['listens'])}"
    if state["namespaces"]:
        line += f", in {plural(state['namespaces'], 'more network namespace')} too"
    if state["without"]:
        line += f"; not in {plural(state['without'], 'other')}, where refusals are EPERM: {state['why']}"
    return line
