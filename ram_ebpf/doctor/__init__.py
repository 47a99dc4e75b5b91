"""What `ram-ebpf doctor` looks at: one concern a file, and examination.py has them all in their order.

Whatever is tried is tried with small things of its own: in a network namespace or a control group that is
thrown away, in a child process, or with objects of the kernel that nothing is attached to. The host stays as
it is.
"""
