#!/bin/sh
# The two commands of README.md, as a newcomer would give them.
set -eu
cd /vagrant
command -v make >/dev/null || { sudo apt-get update -qq && sudo apt-get install -qq make; }
sudo make demo
sudo make test
