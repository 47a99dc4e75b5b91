#!/bin/sh
# Makes the application's directory: a virtual environment that sees the system's packages, with ram-ebpf and
# those of its libraries in it that the system has not, or too old.
#
#     packaging/application.sh DIRECTORY FINAL [OPTION...]
#
# FINAL: where DIRECTORY will be in the end. OPTION: of packaging/bundle.py.
set -eu

source=$(dirname "$(dirname "$(realpath "$0")")")
directory=$(realpath -m "$1")
final=$2
shift 2

rm -rf "$directory"
"${PYTHON:-/usr/bin/python3}" -m venv --system-site-packages --symlinks "$directory"
"$directory/bin/python" "$source/packaging/bundle.py" "$source" "$@"
"$directory/bin/python" -m pip --disable-pip-version-check --quiet uninstall --yes pip setuptools

# Of all programs in there the two of ours, and the interpreter by which their processes find all the rest.
find "$directory/bin" -mindepth 1 ! -name 'python*' ! -name ram-ebpf ! -name docker-ram -delete
"$directory/bin/python" -I "$source/packaging/programs.py" "$directory" "$final"
# Where all this was built is nobody's business, and would be wrong.
sed -i '/^command = /d' "$directory/pyvenv.cfg"
find "$directory" -name direct_url.json -delete
find "$directory" -name __pycache__ -type d -prune -exec rm -rf {} +
rm -rf "$directory/include" "$directory/share" "$directory/lib64" "$directory/.gitignore"
