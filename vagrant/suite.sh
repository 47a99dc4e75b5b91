#!/bin/sh
# The two commands of README.md, as a newcomer would give them.
set -eu
cd /home/vagrant/ram-ebpf
command -v make >/dev/null || { apt-get update -qq && apt-get install -qq make; }
make demo
make test
