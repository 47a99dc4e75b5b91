"""All benchmarks, one after the other: `python -m benchmarks [--quick]`, or `make bench`."""

from __future__ import annotations

from benchmarks import daemon, dns, egress, race, report, rules_scale, wire_names

if __name__ == "__main__":
    raise SystemExit(
        report.run(
            {
                "dns": dns.measure,
                "egress": egress.measure,
                "rules": rules_scale.measure,
                "race": race.measure,
                "wire_names": wire_names.measure,
                "daemon": daemon.measure,
            }
        )
    )
