# Frees what a build has left of its work directory. The record beside it, which
# says that it is a build's, is the last to go, so that a cleanup that was cut is
# completed by the next.
work=$1
record=$work.owner
fail() { echo "$*" >&2; exit 1; }
export LC_ALL=C
dir=$(readlink -m -- "$work") || fail "cannot resolve $work"
[ "$dir" != / ] || fail "not a work directory"
if [ ! -e "$record" ]; then
    [ -e "$dir" ] || exit 0
    rmdir -- "$dir" # only if it is empty
    exit
fi
[ -f "$record" ] && [ ! -L "$record" ] || fail "$record is not a record of a build"

# The leader of a build whose caller is gone: all its processes end with it, and
# it is the last to go.
boot='' pid='' start=''
read -r boot pid start <"$record"
runs() {
    read -r stat 2>/dev/null <"/proc/$pid/stat" || return
    set -- $stat
    [ "${22}" = "$start" ] && [ "$3" != Z ] && [ "$3" != X ]
}
if [ "$pid" ] && [ "$boot" = "$(cat /proc/sys/kernel/random/boot_id)" ]; then
    tries=0
    while runs; do
        kill -KILL "$pid" 2>/dev/null
        tries=$((tries + 1))
        [ $tries -lt 300 ] || fail "process $pid of an earlier build cannot be killed"
        sleep 0.1
    done
fi

# Loop devices whose file is in the work directory. The kernel names the file as
# the namespace saw it, which on a file system of its own is no path of the host:
# then the inode tells.
ours() {
    losetup --list --noheadings --output NAME,BACK-INO,BACK-MAJ:MIN,BACK-FILE | while read -r device inode number file; do
        case $file in
        "$dir"/*) echo "$device" ;;
        *)
            major=${number%:*} minor=${number#*:}
            find "$dir" -xdev -type f -inum "$inode" -printf '%D\n' 2>/dev/null |
                grep -qx "$(((minor & 255) | (major << 8) | ((minor & ~255) << 12)))" && echo "$device"
            ;;
        esac
    done
}
if command -v losetup >/dev/null; then
    tries=0
    while devices=$(ours); [ "$devices" ]; do
        for device in $devices; do
            # Partitions, by device-mapper or by the kernel; there may be none.
            kpartx -d "$device" >/dev/null 2>&1
            partx -d "$device" >/dev/null 2>&1
            rm -f -- "/dev/mapper/${device##*/}p"*
            losetup --detach "$device" 2>/dev/null
        done
        # Busy ones go when the kernel has taken the namespace's mounts down.
        tries=$((tries + 1))
        [ $tries -lt 300 ] || fail "loop device $devices cannot be freed"
        sleep 0.1
    done
fi

# A build's mounts are its namespace's. One that the host sees is somebody else's,
# and nothing may be removed through it.
! grep -qF " $dir/" /proc/self/mounts || fail "something is mounted below $dir"
rm -rf --one-file-system -- "$dir" && rm -f -- "$record"
