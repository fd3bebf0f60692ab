# Starts a command that outlives the connection. Its directory has stdin, stdout,
# stderr and, when it has ended, status. Arguments: the directory, the argv.
job=$1
shift
umask 077
cd / || exit
mkdir "$job/started" 2>/dev/null || exit 0 # by a call whose answer was lost
setsid sh -c '
job=$1
shift
note() {
    read -r boot </proc/sys/kernel/random/boot_id && read -r stat </proc/self/stat
    set -- $stat
    echo "$boot $1 ${22}" >"$job/supervisor.new" && mv "$job/supervisor.new" "$job/supervisor"
}
note
# A session of its own can be killed as one.
setsid "$@" <"$job/stdin" >"$job/stdout" 2>"$job/stderr" &
child=$!
echo "$child" >"$job/child"
wait "$child"
echo $? >"$job/status.new" && mv "$job/status.new" "$job/status"
' supervise "$job" "$@" </dev/null >/dev/null 2>&1 &
