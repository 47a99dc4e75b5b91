#!/bin/sh
# Ubuntu 22.04's own generic kernel, in case the box came with another one.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq linux-image-generic
