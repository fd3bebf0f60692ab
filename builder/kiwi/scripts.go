package kiwi

// The scripts that kiwi runs in the image's root: the driver's own, which run
// those of the description and of the configuration.

// afterBootstrap is post_bootstrap.sh, for apt: an index that cannot be read or
// verified is an error, where apt would go on with what it has.
const afterBootstrap = `#!/bin/bash
set -eu
printf '%s\n' 'APT::Update::Error-Mode "any";' 'Acquire::Retries "3";' >/etc/apt/apt.conf.d/99imagefactory-build
`

// afterPackages is config.sh: packages and overlays are in place.
const afterPackages = `#!/bin/bash
set -eu
. /image/imagefactory/env
for script in /image/imagefactory/scripts/*; do
    [ ! -e "$script" ] || "$script"
done
`

// beforeImage is images.sh: the build's mirrors leave the image, its own
// repositories come in. Logs of the installation name the mirrors too.
var beforeImage = map[string]string{
	"apt": `#!/bin/bash
set -eu
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d /etc/apt/apt.conf.d/99imagefactory-build \
    /var/log/bootstrap.log /var/log/dpkg.log /var/log/alternatives.log /var/log/apt /var/lib/apt/lists
install -d -m 0755 /etc/apt/sources.list.d /usr/share/keyrings /var/log/apt /var/lib/apt/lists
for file in /image/imagefactory/repositories/*.sources; do
    [ ! -e "$file" ] || install -m 0644 "$file" /etc/apt/sources.list.d/
done
for file in /image/imagefactory/repositories/*.gpg; do
    [ ! -e "$file" ] || install -m 0644 "$file" /usr/share/keyrings/
done
`,
	"rpm": `#!/bin/bash
set -eu
registered=/etc/yum.repos.d
[ ! -d /etc/zypp ] || registered=/etc/zypp/repos.d
rm -rf /etc/yum.repos.d/*.repo /etc/zypp/repos.d/*.repo /var/log/zypp /var/log/zypper.log /var/log/dnf*.log
install -d -m 0755 "$registered" ` + rpmKeys + `
for file in /image/imagefactory/repositories/*.repo; do
    [ ! -e "$file" ] || install -m 0644 "$file" "$registered"/
done
for file in /image/imagefactory/repositories/*.asc; do
    [ ! -e "$file" ] || install -m 0644 "$file" ` + rpmKeys + `/
done
`,
}

// rpmKeys is where the keys of an rpm distribution lie.
const rpmKeys = "/etc/pki/rpm-gpg"
