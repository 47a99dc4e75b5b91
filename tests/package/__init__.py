"""The Debian package in real roots of Debian: built, installed, booted under systemd, and purged."""
