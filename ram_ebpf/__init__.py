"""Registry access management for Linux, enforced in the kernel by eBPF."""

__version__ = "0.1.0"
