"""What a test of namespaces and networks could leave on the node, as far as it is recognisable as the test's own."""

import json
import shlex
import subprocess
from pathlib import Path

from criollo.linux import mount


def mounts_below(directory: Path) -> list[str]:
    return mount.below(directory)


def ports_of(bridge: str) -> list[str]:
    """Host ends of veth pairs that are still in a bridge."""
    found = subprocess.run(["ip", "-j", "link", "show", "master", bridge], capture_output=True, text=True, check=False)
    return [link["ifname"] for link in json.loads(found.stdout or "[]")] if found.returncode == 0 else []


def rules_with(*words: str) -> list[str]:
    """iptables rules that hold one of these words (an address, an id, a network's name)."""
    rules = []
    for program in ("iptables-save", "ip6tables-save"):
        saved = subprocess.run([program], capture_output=True, text=True, check=False).stdout
        rules += [line for line in saved.splitlines() if any(word in line for word in words)]
    return rules


def delete_link(name: str) -> None:
    subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)


def delete_rules(network: str) -> None:
    """Take away nat rules that name a network, and the chains they lead to: after a test that failed."""
    saved = subprocess.run(["iptables-save", "-t", "nat"], capture_output=True, text=True, check=False).stdout
    for line in saved.splitlines():
        if line.startswith("-A ") and f'"{network}' in line.replace("\\", ""):
            rule = shlex.split(line)
            subprocess.run(["iptables", "-w", "-t", "nat", "-D", *rule[1:]], capture_output=True, check=False)
            if (chain := rule[-1]).startswith("CNI-"):
                subprocess.run(["iptables", "-w", "-t", "nat", "-F", chain], capture_output=True, check=False)
                subprocess.run(["iptables", "-w", "-t", "nat", "-X", chain], capture_output=True, check=False)
