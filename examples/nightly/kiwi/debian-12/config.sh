#!/bin/bash
# After the hardening's scripts: what is Debian's own.
set -eu
set -o pipefail
systemctl enable systemd-resolved.service
# What must be new on every machine.
rm -f /etc/ssh/ssh_host_*
: >/etc/machine-id
ln -sf /etc/machine-id /var/lib/dbus/machine-id
dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' | sed -n 's/^rc *//p' | xargs -r dpkg --purge
apt-get clean
