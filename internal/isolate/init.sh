# The first process of a build's own PID and mount namespaces. When it ends the
# kernel kills whatever still runs in them, and their mounts go with the last.
#
# Arguments: the work directory's record, then the command.
record=$1
shift
[ -f "$record" ] || { echo "the work directory of $record is not claimed" >&2; exit 125; }

# /proc is still that of the host, so this is the PID there.
note() {
    read -r boot </proc/sys/kernel/random/boot_id && read -r stat </proc/self/stat || exit 125
    set -- $stat # the 22nd field, when the process began, tells it from a later one of its PID
    echo "$boot $1 ${22}" >"$record" || exit 125
}
note
mount -t proc proc /proc || exit 125

# A signal that nobody handles does not reach the first process of a namespace,
# so the command is its child.
trap 'kill -TERM "$child" 2>/dev/null' TERM
exec 3<&0
"$@" <&3 3<&- &
child=$!
exec 3<&- </dev/null
while :; do
    wait "$child" # which a signal ends before the child
    status=$?
    kill -0 "$child" 2>/dev/null || exit "$status"
done
