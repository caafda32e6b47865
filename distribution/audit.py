"""Asks pip-audit for known vulnerabilities of everything that is locked.

``python -m distribution.audit requirements/*.txt`` passes only if every version of every lock, for
any Python and platform, was looked up and none is known to be vulnerable: exit status 1 means that
some are, 2 that some could not be looked up.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CLEAN, VULNERABLE, NOT_AUDITED = 0, 1, 2


def main():
    parser = argparse.ArgumentParser(prog="python -m distribution.audit", description=__doc__)
    parser.add_argument("locks", nargs="+", type=Path)
    parser.add_argument("--service", default="pypi", choices=["pypi", "osv"])
    options = parser.parse_args()
    wanted = sorted({pin for lock in options.locks for pin in pins(lock.read_text())})
    print(f"{len(wanted)} versions in {len(options.locks)} locks, asking {options.service}")
    sys.exit(report(wanted, *audit(wanted, options.service)))


def pins(lock):
    """The names and versions in a lock, with any markers."""
    for line in lock.splitlines():
        if line[:1].isalnum():
            requirement = Requirement(line.removesuffix("\\"))
            (pin,) = requirement.specifier
            yield canonicalize_name(requirement.name), pin.version


def audit(wanted, service):
    """The vulnerabilities found, why others were not looked up, and what pip-audit complained."""
    found, skipped, complaints = {}, {}, []
    for round_of_pins in rounds(wanted):
        answer, complaint = ask(round_of_pins, service)
        complaints += [complaint] if complaint else []
        for dependency in answer:
            pin = canonicalize_name(dependency["name"]), dependency.get("version")
            if "skip_reason" in dependency:
                skipped[pin[0]] = dependency["skip_reason"]
            else:
                found[pin] = [vulnerability["id"] for vulnerability in dependency["vulns"]]
    return found, skipped, complaints


def rounds(wanted):
    """The pins in lists without a name twice, since pip-audit takes one version at a time."""
    remaining = list(wanted)
    while remaining:
        chosen = dict(reversed(remaining))
        yield sorted(chosen.items())
        remaining = [pin for pin in remaining if chosen[pin[0]] != pin[1]]


def ask(some_pins, service):
    """The answer of pip-audit for these pins, and its complaint if it gave no answer."""
    with tempfile.TemporaryDirectory() as scratch:
        requirements = Path(scratch, "requirements.txt")
        requirements.write_text("".join(f"{name}=={version}\n" for name, version in some_pins))
        command = [sys.executable, "-m", "pip_audit", "--requirement", requirements]
        command += ["--no-deps", "--disable-pip", "--progress-spinner", "off"]
        command += ["--vulnerability-service", service, "--format", "json"]
        done = subprocess.run(command, capture_output=True, text=True)
    try:
        return json.loads(done.stdout)["dependencies"], ""
    except ValueError:
        return [], done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no answer"


def report(wanted, found, skipped, complaints):
    """Prints what was found, and returns the exit status."""
    vulnerable = {pin: ids for pin, ids in found.items() if ids}
    for (name, version), ids in sorted(vulnerable.items()):
        print(f"  vulnerable: {name} {version}: {', '.join(ids)}")
    missing = [pin for pin in wanted if pin not in found]
    reasons = {}
    for name, version in missing:
        reason = skipped.get(name, "no answer").split(":")[0]
        reasons.setdefault(reason, []).append(f"{name} {version}")
    for reason, unaudited in reasons.items():
        print(f"  not audited: {', '.join(unaudited)}: {reason}")
    for complaint in complaints:
        print(f"  pip-audit: {complaint}")
    print(f"{len(found)} audited, {len(vulnerable)} vulnerable, {len(missing)} not audited")
    if missing:
        print("The service did not answer for all of them, so this is no clean audit.")
    return VULNERABLE if vulnerable else NOT_AUDITED if missing else CLEAN


if __name__ == "__main__":
    main()
