#!/usr/bin/python3
"""Runs a few failed tests once more, alone: the machines are shared, and one of thousands may fail for want of processor
time. What passes then is named as unsteady, with its first failure in the output above; nothing is tried a second time of
what the sanitizers reported, of bytes that were lost or came twice (tests/torture), or when many failed.

usage: again.py LOG     what failing steps printed, each behind a line "== COMMAND"
Its last line is "N unsteady"."""
import os
import re
import subprocess
import sys

MAX_TESTS = 5
FINDINGS = re.compile(r"(Thread|Address|Leak|UndefinedBehavior)Sanitizer|: runtime error: ")
COUNTS = re.compile(r"^.*\d+ (?:failed|errors?)\b.* in [0-9.]+s\b", re.M)
FAILED = re.compile(r"^(?:FAILED|ERROR) ((?!tests/torture)\S+?\.py::.+?)(?: - .*)?$", re.M)


def failures(text):
    """(mode, test) of each that may be tried again; None if there is something that may not."""
    found = []
    for step in re.split(r"^== ", text, flags=re.M)[1:]:
        command, _, output = step.partition("\n")
        mode = re.search(r"MODE=([a-z]+)", command)
        counts = COUNTS.findall(output)
        tests = FAILED.findall(output)
        n_failed = sum(map(int, re.findall(r"(\d+) (?:failed|error)", counts[-1]))) if counts else 0
        if not re.search("pytest|check-api|check-crash", command) or FINDINGS.search(output) or not 0 < n_failed == len(tests):
            return None
        found += [(mode[1] if mode else "release", test) for test in tests]
    return found if len(found) <= MAX_TESTS else None


def passes(mode, test):
    print(f"== again, alone: MODE={mode} {test}", flush=True)
    command = ["/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    return subprocess.run(command, env={**os.environ, "MODE": mode}).returncode == 0


def main():
    with open(sys.argv[1], encoding="utf-8", errors="replace") as file:
        found = failures(file.read())
    if found is None:
        print("== what failed is not tried again")
    unsteady = [each for each in found or [] if passes(*each)]
    for mode, test in unsteady:
        print(f"== UNSTEADY: MODE={mode} {test} failed, and passed when run alone")
    print(f"{len(unsteady)} unsteady")


if __name__ == "__main__":
    main()
