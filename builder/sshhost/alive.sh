# Tells whether a command's supervisor still runs, or has written the status.
job=$1
[ -e "$job/status" ] && exit
read -r boot pid start <"$job/supervisor" || exit
read -r stat 2>/dev/null <"/proc/$pid/stat" && set -- $stat &&
    [ "$boot" = "$(cat /proc/sys/kernel/random/boot_id)" ] && [ "${22}" = "$start" ] && [ "$3" != Z ] && exit
[ -e "$job/status" ]
