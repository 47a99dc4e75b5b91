"""What ram-ebpf costs, beside something else that is run in the same minute; see docs/benchmarks.md."""
