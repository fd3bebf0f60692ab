# Ends a command: SIGTERM first, after a while SIGKILL. Arguments: its directory, the
# record of its work directory or nothing, the patience in tenths of a second.
job=$1 record=$2 patience=$3
[ -d "$job/started" ] || exit 0
wait_for() {
    while [ ! -e "$job/$1" ]; do
        [ "$patience" -gt 0 ] || return
        patience=$((patience - 1))
        sleep 0.1
    done
}
leader() {
    pid=$child
    [ -z "$record" ] || read -r boot pid start 2>/dev/null <"$record"
    [ "$pid" ] || pid=$child
    echo "$pid"
}
wait_for child || exit
read -r child <"$job/child"
kill -TERM "$(leader)" 2>/dev/null
wait_for status && exit
kill -KILL "$(leader)" 2>/dev/null
kill -s KILL -- "-$child" 2>/dev/null
patience=100
wait_for status || { echo "process $child cannot be killed" >&2; exit 1; }
