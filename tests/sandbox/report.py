"""Runs the whole suite and writes its table: ``python -m tests.sandbox.report``.

``--read FILE`` writes the page from results of an earlier run instead, which ``--keep FILE`` left.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.sandbox.attack import Attack, Category
from tests.sandbox.catalogue import load_all, shared, whole
from tests.sandbox.setups import NEWEST, SETUPS
from tests.sandbox.users import ROOT, run_harness, users

PAGE = ROOT / "docs" / "reference" / "escape-suite.md"
LIMIT = 1500
"""Seconds that one setup may take."""
SUCCEEDED, FAILED, ABSENT, NOT_TRIED = "**✗**", "·", "–", ""
"""In a cell: it got through, it did not, this machine has no such target, it does not apply."""

Results = Mapping[tuple[str, int], Mapping[str, Any]]
"""The report of each setup and user."""


def run_all(
    setups: Sequence[str], chosen: Sequence[int], keep: Path | None
) -> list[dict[str, Any]]:
    """The reports of all setups as these users."""
    attacks = load_all()
    reports = []
    for user in chosen:
        for name in setups:
            some = whole(attacks) if SETUPS[name].whole else shared(attacks)
            run = run_harness(user, [name], some, limit=LIMIT)
            if run.code or not run.reports or run.reports[-1]["failure"]:
                raise SystemExit(f"{name} as user {user} did not come to its end:\n{run.output}")
            reports += run.reports
            print(summary(run.reports[-1]), flush=True)
            if keep is not None:
                keep.write_text(json.dumps(reports, indent=1))
    return reports


def summary(report: Mapping[str, Any]) -> str:
    """One line about a setup."""
    attacks = load_all()
    won = [name for name, one in report["outcomes"].items() if one["won"]]
    impact = [name for name in won if not attacks[name].minor]
    return (
        f"{report['setup']} as {user_name(report['user'])}: {len(impact)} with impact and"
        f" {len(won) - len(impact)} minor of {len(report['outcomes'])}, {report['seconds']:.0f} s"
        f" {' '.join(impact) if len(impact) < 12 else ''} {report['failure']}".rstrip()
    )


def user_name(user: int) -> str:
    """How a user is called in the table."""
    return "root" if user == 0 else "user"


def page(results: Results) -> str:
    """The page."""
    attacks = load_all()
    columns = [name for name in SETUPS if any(setup == name for setup, _ in results)]
    return "\n".join(
        [
            "# The escape suite",
            "",
            "<!-- Written by `python -m tests.sandbox.report`; change that, not this. -->",
            "",
            *_introduction(),
            "",
            "## How many succeed",
            "",
            *_counts(results, columns, attacks),
            "",
            "## Each attack",
            "",
            f"{SUCCEEDED} it succeeds as the unprivileged user, {SUCCEEDED} root: only as root,"
            f" {FAILED} it does not, {ABSENT} the machine has nothing for it to aim at; an empty"
            " cell: it is about a part that is not there.",
            "",
            *_tables(results, columns, attacks),
        ]
    )


def _introduction() -> list[str]:
    attacks = load_all()
    minor = sum(one.minor for one in attacks.values())
    return [
        f"{len(attacks)} attempts by code in the child, {minor} of them without impact beyond",
        "knowing that something is there, in the categories of the threat model. Each was carried",
        "out as an unprivileged user and as root, on each way of confining a child. A witness",
        "outside judges: a secret that came out, a file, process or service of the user that was",
        "touched, a process that lives on. The child is never asked.",
        "",
        "The plain child and the stock kernel show that the attacks bite: there most succeed. At",
        "levels 2 and 3 none with impact may; `tests/sandbox/test_escape.py` fails if one does, or",
        "if a layer that this machine has is not in force.",
        "",
        f"Measured on Linux {_kernel()}, {platform.machine()}, Landlock ABI {NEWEST}.",
    ]


def _kernel() -> str:
    return ".".join(platform.release().split(".")[:2])


def _counts(results: Results, columns: Sequence[str], attacks: Mapping[str, Attack]) -> list[str]:
    lines = ["| | with impact, user | root | minor, user | root |", "|---|---|---|---|---|"]
    for name in columns:
        cells = [
            _count(results.get((name, user)), attacks, minor=minor)
            for minor in (False, True)
            for user in sorted({user for _, user in results}, reverse=True)
        ]
        lines.append(f"| {SETUPS[name].text} | {' | '.join(cells)} |")
    return lines


def _count(report: Mapping[str, Any] | None, attacks: Mapping[str, Attack], *, minor: bool) -> str:
    if report is None:
        return ""
    tried = {n: o for n, o in report["outcomes"].items() if attacks[n].minor is minor}
    return f"{sum(bool(one['won']) for one in tried.values())} of {len(tried)}"


def _tables(results: Results, columns: Sequence[str], attacks: Mapping[str, Attack]) -> list[str]:
    groups: dict[Category, list[Attack]] = defaultdict(list)
    for one in attacks.values():
        groups[one.category].append(one)
    lines = []
    for category in Category:
        lines += [f"### {category.value[0].upper()}{category.value[1:]}", ""]
        lines += [
            f"| attack | {' | '.join(_short(name) for name in columns)} |",
            f"|---{'|---' * len(columns)}|",
        ]
        for one in groups[category]:
            cells = [_cell(results, name, one.id) for name in columns]
            minor = " *(minor)*" if one.minor else ""
            lines.append(f"| `{one.id}`: {one.text}{minor} | {' | '.join(cells)} |")
        lines.append("")
    return lines


def _short(name: str) -> str:
    return SHORT.get(name, name)


SHORT = {
    "process": "plain",
    "namespaces": "ns",
    "namespaces-seccomp": "ns + sec",
    "level2": "2",
    "level3": "3",
    "kernelspec": "spec",
} | {f"abi{version}": f"2, ABI {version}" for version in range(1, 10)}


def _cell(results: Results, setup: str, attack: str) -> str:
    """What an attack came to on a setup: as the unprivileged user, and as root if that differs."""
    told = {user: _told(results[setup, user], attack) for name, user in results if name == setup}
    unprivileged = next((text for user, text in told.items() if user), None)
    root = told.get(0)
    if unprivileged is None or root is None:
        return unprivileged or root or ""
    if root == SUCCEEDED and unprivileged != SUCCEEDED:
        return f"{SUCCEEDED} root"
    return root if unprivileged == ABSENT else unprivileged


def _told(report: Mapping[str, Any], attack: str) -> str:
    if attack in report["absent"]:
        return ABSENT
    one = report["outcomes"].get(attack)
    if one is None:
        return NOT_TRIED
    return SUCCEEDED if one["won"] else FAILED


def by_setup(reports: Sequence[Mapping[str, Any]]) -> Results:
    """The reports by setup and user."""
    return {(report["setup"], report["user"]): report for report in reports}


def main() -> None:
    """Run or read, and write."""
    parser = argparse.ArgumentParser(prog="report", description=__doc__)
    parser.add_argument("--setups", nargs="+", default=list(SETUPS), help="some setups only")
    parser.add_argument("--users", type=int, nargs="+", default=users(), help="some users only")
    parser.add_argument("--read", type=Path, nargs="+", help="results of earlier runs")
    parser.add_argument("--keep", type=Path, help="where results are kept")
    chosen = parser.parse_args()
    if chosen.read:
        reports = [report for file in chosen.read for report in json.loads(file.read_text())]
    else:
        reports = run_all(chosen.setups, chosen.users, chosen.keep)
    if {(name, user) for name in SETUPS for user in users()} - by_setup(reports).keys():
        print("no page is written: setups or users are missing")
        return
    PAGE.write_text(page(by_setup(reports)).rstrip() + os.linesep, "utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
