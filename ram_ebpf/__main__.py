"""`python -m ram_ebpf`."""

from ram_ebpf.cli.main import main

raise SystemExit(main())
