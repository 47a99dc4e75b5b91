"""Real container engines, each on a machine of its own, governed by ram-ebpf: `make test-engines`."""
