# Who the machine is, what cloud-init did, its disk and its drivers.

fact identity <<'X'
echo "uid $(id -u)"
echo "boot $(awk '$1 == "btime" {print $2}' /proc/stat)"
echo "machine-id $(cat /etc/machine-id)"
echo "now $(date +%s)"
echo "machine-id-time $(stat -c %Y /etc/machine-id)"
for f in /etc/ssh/ssh_host_*_key.pub; do
	[ -f "$f" ] && echo "hostkey $(stat -c %Y "$f") $(ssh-keygen -lf "$f")"
done
for f in /var/lib/systemd/random-seed /var/lib/urandom/random-seed /boot/efi/loader/random-seed /boot/loader/random-seed; do
	[ -f "$f" ] && sha256sum "$f" | sed 's/^\([0-9a-f]*\) */seed \1 /'
done
:
X

fact cloud-init 400 <<'X'
command -v cloud-init >/dev/null || { echo "cloud-init is not installed" >&2; exit 1; }
i=0
while [ ! -f /run/cloud-init/result.json ] && [ "$i" -lt 380 ]; do sleep 2; i=$((i + 2)); done
cat /run/cloud-init/result.json
X

fact cloud-init-stages <<'X'
cat /run/cloud-init/status.json
X

fact cloud-config <<'X'
. "$tmp/lib.sh"
files /etc/cloud/cloud.cfg /etc/cloud/cloud.cfg.d/*.cfg | grep -E '^### |^ *(datasource_list|- (growpart|resizefs)) *:?|NoCloud|ConfigDrive|OpenStack'
X

fact disk <<'X'
src=$(findmnt -n -o SOURCE /)
echo "source $src"
echo "fstype $(findmnt -n -o FSTYPE /)"
set -- $(stat -f -c '%S %b' /)
echo "filesystem-bytes $(($1 * $2))"
dev=$(readlink -f "$src"); dev=${dev##*/}
parent=$(basename "$(dirname "$(readlink -f "/sys/class/block/$dev")")")
[ -r "/sys/class/block/$parent/size" ] || parent=$dev
read -r sectors <"/sys/class/block/$parent/size" && echo "disk-bytes $((sectors * 512))"
X

fact initrd 180 <<'X'
k=$(uname -r)
echo "kernel $k"
sed -n 's,.*/,builtin ,p' "/lib/modules/$k/modules.builtin" | grep -E 'virtio|xen|nvme|ixgbe'
if command -v lsinitramfs >/dev/null; then lsinitramfs "/boot/initrd.img-$k" >"$tmp/initrd" || exit 1
elif command -v lsinitrd >/dev/null; then lsinitrd --kver "$k" >"$tmp/initrd" || exit 1
else echo "neither lsinitramfs nor lsinitrd is installed" >&2; exit 1; fi
sed -n 's#.*/\([^/]*\.ko\)\(\.[a-z0-9]*\)*$#initrd \1#p' "$tmp/initrd" |
	grep -E '^initrd (virtio|xen|ixgbe|nvme|hv_|vmw|ahci|sd_mod|ext4|xfs|btrfs)'
X

fact modules 120 <<'X'
for m in ixgbevf virtio_blk virtio_net virtio_scsi xen_blkfront xen_netfront xen_vbd xen_vnif xen_scsi xen_scsifront \
	scsi_ep_front nvme hinic mlx4_ib mlx5_ib ib_ipoib nvidia drv_davinci_intf_host; do
	f=$(modinfo -F filename "$m" 2>/dev/null | head -n 1) || f=
	echo "$m ${f:-missing} $(modinfo -F version "$m" 2>/dev/null | head -n 1)"
done
X

fact architecture <<'X'
echo "kernel $(uname -m)"
if command -v dpkg >/dev/null; then echo "packages $(dpkg --print-architecture)"
else echo "packages $(rpm -E %_arch)"; fi
X

fact os-release <<'X'
grep -E '^(ID|ID_LIKE|VERSION_ID|PRETTY_NAME)=' /etc/os-release
X
